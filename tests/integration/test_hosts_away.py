"""A host that has joined comes up while the first one is away: its own programs do not wait for others."""

import json
import os
import signal
import subprocess
from pathlib import Path

from tests.support.cluster import QUIET, Cluster, cluster
from tests.support.instance import Instance, alive, until
from viscript.home import Home, is_locked


def stored(home: Instance) -> dict[str, dict]:
    """What its keepers say, by app: the cluster's commands need the broker."""
    found = {}
    for spec in (home.root / "launches").glob("*/state.json"):
        report = json.loads(spec.read_text())
        log = next((home.root / "logs").glob(f"{spec.parent.name}-*.log"), None)
        if log is not None and report["state"] == "running":
            found[log.stem.partition("-")[2]] = report
    return found


def joined(made: Cluster, *autostart: str) -> Instance:
    """`beta`, with ids of its own, down as its first host is."""
    beta = made.join("beta")
    beta.configure({name: {**app, "autostart": name in autostart} for name, app in QUIET.items()})
    beta.run("down")
    made.first.run("down")
    return beta


def state(made: Cluster) -> str:
    rows = json.loads(made.first.run("host", "ls", "--json", code=None).stdout)
    return next(row["state"] for row in rows if row["name"] == "beta")


def test_its_own_programs_start_and_it_joins_the_others_later(tmp_path: Path) -> None:
    with cluster(tmp_path) as made:
        beta = joined(made, "sleeper")
        said = beta.run("up", "--detach").stdout
        assert f"tcp://{made.endpoint} does not answer" in said
        pid = stored(beta)["sleeper"]["pid"]
        made.first.run("up", "--detach")
        until(lambda: state(made) == "connected", 20)
        (seen,) = [x for x in made.first.ask("la") if x["host"] == "beta"]
        assert (seen["pid"], seen["id"], seen["state"]) == (pid, 101, "running")
        assert beta.ask("sd", "101")[0]["state"] == "exited"


def test_what_needs_the_bus_says_so_and_starts_when_that_is_there(tmp_path: Path) -> None:
    with cluster(tmp_path) as made:
        beta = joined(made, "citizen", "sleeper")
        said = beta.run("up", "--detach", code=1)
        assert "citizen is not started: it needs the bus" in said.stdout
        assert set(stored(beta)) == {"sleeper"}
        made.first.run("up", "--detach")
        until(lambda: state(made) == "connected", 20)
        made.first.run("wait", "beta:citizen")
        citizen = next(x for x in made.first.ask("la") if x["app"] == "citizen")
        assert made.first.ask("ping", str(citizen["id"]))["bus"]["ok"] is True


def test_a_daemon_that_dies_meanwhile_takes_over_what_runs(tmp_path: Path) -> None:
    with cluster(tmp_path) as made:
        beta = joined(made, "sleeper")
        beta.run("up", "--detach")
        pid = stored(beta)["sleeper"]["pid"]
        os.kill(json.loads((Home(beta.root).daemon).read_text())["pid"], signal.SIGKILL)
        until(lambda: not is_locked(Home(beta.root).lock))
        beta.run("up", "--detach")
        assert stored(beta)["sleeper"]["pid"] == pid
        assert "sleeper" in beta.run("down").stdout
        until(lambda: not alive(pid))


def test_what_is_cut_off_is_taken_down_and_nobody_else_whatever_its_file_says(
    tmp_path: Path,
) -> None:
    with cluster(tmp_path) as made, subprocess.Popen(["sleep", "100"]) as other:
        beta = joined(made, "sleeper")
        beta.run("up", "--detach")
        pid = stored(beta)["sleeper"]["pid"]
        file = Home(beta.root).daemon
        file.write_text(json.dumps({**json.loads(file.read_text()), "pid": other.pid}))
        assert "sleeper" in beta.run("down").stdout
        assert not alive(pid)
        assert other.poll() is None
        other.kill()


def test_a_host_that_never_reached_the_first_has_no_ids_and_does_not_come_up(
    tmp_path: Path,
) -> None:
    with cluster(tmp_path) as made:
        beta = made.home("beta")
        beta.run("join", "--no-up", input=made.invite("--name", "beta") + "\n")
        made.first.run("down")
        said = beta.run("up", "--detach", code=6).stderr
        assert made.endpoint in said
        assert "viscript up" in said
