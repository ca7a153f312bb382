"""A cluster of homes on one machine: joining, ids, rights, revoking; real daemons, one broker."""

import json
import os
import signal

import pytest

from tests.support.cluster import QUIET, Cluster, cluster
from tests.support.instance import alive, until


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """First host and `beta`, for tests that only add launches."""
    with cluster(tmp_path_factory.mktemp("c")) as made:
        made.first.start("sleeper")
        made.beta = made.join("beta")
        yield made


def state_of(made: Cluster, name: str) -> str:
    rows = json.loads(made.first.run("host", "ls", "--json", code=None).stdout)
    return next(row["state"] for row in rows if row["name"] == name)


def test_a_host_joins_with_the_string_from_standard_input_and_is_seen(pair):
    rows = pair.first.ask("host", "ls")
    assert [(row["name"], row["state"]) for row in rows][1:] == [("beta", "connected")]
    assert rows[0]["state"] == "first"
    assert pair.beta.ask("host", "ls")[1]["fingerprint"] == rows[1]["fingerprint"]


def test_ids_are_short_and_no_two_hosts_have_the_same(pair):
    here, there = pair.first.start("sleeper"), pair.beta.start("sleeper")
    assert (here["id"], there["id"]) == (2, 101)
    assert pair.first.start("sleeper")["id"] == 3


def test_an_app_of_a_joined_host_is_on_the_bus_of_all_and_ends_over_it(pair):
    started = pair.beta.start("citizen")
    ended = pair.beta.ask("sd", str(started["id"]))[0]
    assert ended["exit"]["how"] == "shut down over the bus"


def test_an_invitation_is_good_once(pair, tmp_path):
    text = pair.invite()
    file = tmp_path / "join.txt"
    file.write_text(text)
    file.chmod(0o600)
    gamma, delta = pair.home("gamma"), pair.home("delta")
    gamma.run("join", "--from", str(file), "--no-up")
    refused = delta.run("join", "--from", str(file), "--no-up", code=4)
    assert "viscript host invite" in refused.stderr
    assert text.rpartition("/")[2] not in refused.stderr


def test_a_join_string_as_an_argument_is_refused_and_not_repeated(pair):
    text = pair.invite()
    refused = pair.home("epsilon").run("join", text, code=2)
    assert text.rpartition("/")[2] not in refused.stderr + refused.stdout


def test_a_host_whose_daemon_runs_must_be_down_to_join(pair):
    refused = pair.beta.run("join", code=9, input=pair.invite() + "\n")
    assert "viscript down" in refused.stderr


def test_the_first_host_of_a_cluster_does_not_join_another(pair, tmp_path):
    with cluster(tmp_path) as other:
        text = other.invite()
        pair.first.run("down")
        refused = pair.first.run("join", code=9, input=text + "\n")
        pair.first.run("up", "--detach")
    assert "beta" in refused.stderr


def test_without_an_endpoint_that_others_reach_nobody_is_invited(pair):
    refused = pair.first.run("host", "invite", code=2)
    assert "settings.broker.endpoint" in refused.stderr
    for wrong in ("0.0.0.0", "a b", "host:99999", "-x:1", ""):
        assert (
            "--endpoint" in pair.first.run("host", "invite", f"--endpoint={wrong}", code=2).stderr
        )


def test_a_host_may_not_give_its_apps_more_than_app_or_node(pair):
    apps = {"boss": {"path": "sleep", "default_args": ["9"], "role": "observer"}}
    zeta = pair.join("zeta")
    zeta.configure(apps)
    refused = zeta.run("start", "boss", code=None)
    assert refused.returncode != 0
    assert "may be app and node" in refused.stderr


def test_a_revoked_host_is_cut_off_and_what_runs_there_goes_on(tmp_path):
    with cluster(tmp_path) as made:
        beta = made.join("beta")
        pid = beta.start("sleeper")["pid"]
        print_ = made.first.ask("host", "ls")[1]["fingerprint"]
        made.first.run("host", "revoke", print_)
        assert state_of(made, "beta") == "revoked"
        assert beta.run("la", code=4).stderr
        assert alive(pid)
        assert "sleeper" in beta.run("down").stdout
        until(lambda: not alive(pid))
        refused = beta.run("up", "--detach", code=4)
        assert "viscript host invite" in refused.stderr
        # With a new invitation it comes back under its name.
        beta.run("join", input=made.invite() + "\n")
        assert state_of(made, "beta") == "connected"
        made.first.run("host", "rm", "beta")
        assert len(made.first.ask("host", "ls")) == 1


def test_a_host_that_is_away_is_shown_with_its_age_and_what_it_said_last(tmp_path):
    with cluster(tmp_path) as made:
        beta = made.join("beta")
        beta.start("sleeper")
        until(lambda: made.first.ask("host", "ls")[1]["launches"] == {"running": 1})
        beta.kill_daemon()
        until(lambda: state_of(made, "beta") == "unreachable")
        shown = made.first.run("host", "ls", code=10)
        assert "ago" in shown.stdout
        assert "1 running" in shown.stdout
        assert "beta" in shown.stderr
        beta.run("up", "--detach")
        until(lambda: state_of(made, "beta") == "connected")
        assert beta.ask("la")[0]["state"] == "running"


def test_without_a_token_an_admin_decides_by_the_whole_fingerprint(tmp_path):
    with cluster(tmp_path) as made:
        made.first.run("bus", "keys", "open", "60")
        key = made.first.ask("status")["broker"]["key"]
        beta = made.home("beta")
        asking = (
            "join",
            f"tcp://{made.endpoint}",
            "--broker-key",
            key,
            "--name",
            "beta",
            "--no-up",
        )
        beta.run(*asking, code=7)
        (row,) = [x for x in made.first.ask("host", "ls") if x["state"] == "pending"]
        assert made.first.run("host", "accept", "beta", code=2).stderr
        made.first.run("host", "accept", row["fingerprint"], "--name", "beta")
        beta.run(*asking)
        beta.run("up", "--detach")
        assert state_of(made, "beta") == "connected"


def test_who_is_turned_away_by_fingerprint_is_no_host_and_may_not_come_back_by_asking(tmp_path):
    with cluster(tmp_path) as made:
        made.first.run("bus", "keys", "open", "60")
        key = made.first.ask("status")["broker"]["key"]
        beta = made.home("beta")
        asking = ("join", f"tcp://{made.endpoint}", "--broker-key", key, "--no-up")
        beta.run(*asking, code=7)
        (row,) = [x for x in made.first.ask("host", "ls") if x["state"] == "pending"]
        assert "fingerprint" in made.first.run("host", "reject", row["name"], code=2).stderr
        assert made.first.ask("host", "reject", row["fingerprint"])["done"] == "rejected"
        assert [x["state"] for x in made.first.ask("host", "ls")] == ["first"]
        assert made.first.run("host", "reject", row["fingerprint"], code=5).stderr
        assert "does not admit this host" in beta.run(*asking, code=4).stderr
        assert not (beta.root / "cluster.json").exists()


def test_leaving_gives_the_home_back(tmp_path):
    with cluster(tmp_path) as made:
        beta = made.join("beta")
        beta.run("leave", code=9)
        beta.run("down")
        beta.run("leave")
        beta.run("up", "--detach")
        assert beta.start("sleeper")["id"] == 1


def test_the_first_hosts_daemon_may_die_and_the_others_carry_on(tmp_path):
    with cluster(tmp_path) as made:
        beta = made.join("beta")
        number = beta.start("citizen")["id"]
        made.first.kill_daemon()
        listed = json.loads(beta.run("la", "--json", code=10).stdout)
        assert [(x["id"], x["state"]) for x in listed] == [(number, "running")]
        made.first.run("up", "--detach")
        until(lambda: state_of(made, "beta") == "connected")
        assert beta.start("citizen")["id"] == number + 1


def test_la_and_ping_show_all_hosts(pair):
    here, there = pair.first.start("sleeper")["id"], pair.beta.start("citizen")["id"]
    shown = {x["id"]: x["host"] for x in pair.first.ask("la") if x["ended"] is None}
    assert shown[there] == "beta"
    assert shown[here] == pair.first.ask("host", "ls")[0]["name"]
    pinged = pair.first.ask("ping", str(there))
    assert (pinged["host"], pinged["bus"]["ok"]) == ("beta", True)
    assert "beta" in pair.first.run("la").stdout
    pair.beta.run("sd", str(there))


def test_commands_go_to_the_host_that_has_it(pair):
    started = json.loads(pair.first.run("start", "--json", "beta:sleeper").stdout)
    number = started["id"]
    assert (number > 100, started["host"]) == (True, "beta")
    restarted = pair.first.ask("restart", str(number))[0]
    assert (restarted["id"], restarted["host"], restarted["state"]) == (number, "beta", "running")
    ended = pair.first.ask("sd", "beta:sleeper", "--yes")
    assert number in {x["id"] for x in ended}
    assert {x["host"] for x in ended} == {"beta"}
    assert pair.first.run("sd", "beta:sleeper", code=5).stderr


def test_people_of_a_joined_host_see_the_others_and_change_nothing_there(pair):
    number = pair.first.start("sleeper")["id"]
    assert number in {x["id"] for x in pair.beta.ask("la")}
    refused = pair.beta.run("sd", str(number), code=4)
    assert "viscript role set" in refused.stderr


def test_with_the_invitation_of_an_operator_they_do(tmp_path):
    with cluster(tmp_path) as made:
        number = str(made.first.start("sleeper")["id"])
        beta = made.join("beta", "--role", "operate")
        assert beta.ask("sd", number)[0]["state"] == "exited"


def test_with_no_role_they_see_nothing_of_the_others(tmp_path):
    with cluster(tmp_path) as made:
        made.first.start("sleeper")
        beta = made.join("beta", "--role", "none", options=("--grant", "none"))
        number = beta.start("sleeper")["id"]
        assert [x["id"] for x in beta.ask("la")] == [number]
        assert number not in {x["id"] for x in made.first.ask("la")}
        assert made.first.run("sd", str(number), code=5).stderr
        until(lambda: made.first.ask("host", "ls")[1]["seen"] > beta.launch(number)["started"] + 1)
        beta.kill_daemon()
        assert number not in {
            x["id"] for x in json.loads(made.first.run("la", "--json", code=10).stdout)
        }


def test_a_host_that_is_away_is_listed_and_commands_to_it_fail_clearly(tmp_path):
    with cluster(tmp_path) as made:
        made.first.start("sleeper")
        beta = made.join("beta")
        number = beta.start("sleeper")["id"]
        until(lambda: made.first.ask("host", "ls")[1]["launches"] == {"running": 1})
        beta.kill_daemon()
        listed = made.first.run("la", "--json", code=10)
        (away,) = [x for x in json.loads(listed.stdout) if x["id"] == number]
        assert (away["host"], away["state"]) == ("beta", "running")
        assert away["seen"] is not None
        assert "as of" in made.first.run("la", code=10).stdout
        assert "beta" in made.first.run("sd", str(number), code=6).stderr
        assert "beta" in made.first.run("start", "beta:sleeper", code=6).stderr
        partly = made.first.run("sd", "sleep*", "--yes", "--json", code=10)
        assert [x["id"] for x in json.loads(partly.stdout)] == [1]
        assert alive(away["pid"])


def test_what_is_marked_autostart_starts_on_a_joined_host_and_is_adopted(tmp_path):
    with cluster(tmp_path) as made:
        text = made.invite("--name", "beta")
        beta = made.home("beta")
        beta.configure(
            {name: {**app, "autostart": name == "citizen"} for name, app in QUIET.items()}
        )
        beta.run("join", input=text + "\n")
        (before,) = beta.ask("la")
        assert (before["id"], before["app"], before["state"]) == (101, "citizen", "running")
        beta.kill_daemon()
        beta.run("up", "--detach")
        (after,) = beta.ask("la")
        assert (after["id"], after["pid"]) == (before["id"], before["pid"])
        beta.run("daemon", "restart")
        assert beta.ask("la")[0]["pid"] == before["pid"]
        assert made.first.ask("ping", str(before["id"]))["bus"]["ok"] is True


def test_the_broker_may_die_and_all_find_it_again(tmp_path):
    with cluster(tmp_path) as made:
        beta = made.join("beta")
        started = beta.start("citizen")
        os.kill(made.first.ask("status")["broker"]["pid"], signal.SIGKILL)
        until(lambda: made.first.run("ping", str(started["id"]), code=None).returncode == 0, 20)
        assert made.first.ask("ping", str(started["id"]))["host"] == "beta"
        assert alive(started["pid"])
        until(lambda: state_of(made, "beta") == "connected")


def test_a_first_host_that_has_lost_its_database_gives_nobody_elses_ids(tmp_path):
    with cluster(tmp_path) as made:
        beta = made.join("beta")
        number = beta.start("sleeper")["id"]
        made.first.run("down")
        for path in (made.first.root / "state").glob("viscript.db*"):
            path.unlink()
        made.first.run("up", "--detach")
        assert made.first.start("sleeper")["id"] == 201
        until(lambda: state_of(made, "beta") == "connected")
        assert made.first.ask("ping", str(number))["host"] == "beta"
