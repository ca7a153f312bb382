"""The names that a home keeps for completion."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

from viscript import snapshot
from viscript.cluster import files
from viscript.cluster.talk import Directory, HostInfo, Known
from viscript.completion import stored
from viscript.config import App, Config
from viscript.home import Home
from viscript.records import Status

WEB = App("web", "bin/web", "f:1", desc="Serves.", short=("w",), groups=("front",))
CONFIG = Config(Path("f"), {"web": WEB})


def made(tmp_path) -> Home:
    home = Home(tmp_path / "h")
    home.create()
    return home


def status(number: int, host: str = "") -> Status:
    return Status(
        id=number, app="web", state="running", key="k", since=0, args=[], started=0, host=host
    )


def launcher(home: Home) -> SimpleNamespace:
    record = SimpleNamespace(status=lambda: status(1))
    desk = SimpleNamespace(jobs=lambda: [SimpleNamespace(job=7, verb="sd", state="working")])
    return SimpleNamespace(home=home, config=CONFIG, records={1: record}, desk=desk)


def test_a_host_alone_keeps_its_own_names(tmp_path):
    found = snapshot.names(launcher(made(tmp_path)))
    assert found["apps"] == [
        {"name": "web", "help": "Serves.", "short": ("w",), "groups": ("front",)}
    ]
    assert [x["id"] for x in found["launches"]] == [1]
    assert found["jobs"] == [{"id": 7, "text": "sd, working"}]
    assert found["hosts"] == []


def test_a_host_of_a_cluster_keeps_what_the_others_said_last(tmp_path):
    home = made(tmp_path)
    hosts = [HostInfo(name="one", key="a" * 40), HostInfo(name="two", key="b" * 40)]
    files.save_known(home, Known("one", Directory(hosts)))
    files.save_last(home, {"two": files.Last(1.0, [status(9, "two")])})
    found = snapshot.names(launcher(home))
    assert set(found["hosts"]) == {"one", "two"}
    assert [(x["id"], x["host"]) for x in found["launches"]] == [(1, ""), (9, "two")]


def test_a_damaged_list_of_hosts_costs_only_the_hosts(tmp_path):
    home = made(tmp_path)
    files.save_last(home, {})
    (home.root / "state/known-hosts.json").write_text("[")
    (home.root / "state/known-hosts.json").chmod(0o600)
    assert snapshot.names(launcher(home))["hosts"] == []


def test_a_command_notes_the_apps_and_leaves_the_rest(tmp_path):
    home = made(tmp_path)
    snapshot.write(home, {"hosts": ["one"], "apps": []})
    snapshot.keep_apps(home, CONFIG)
    found = snapshot.read(home)
    assert [x["name"] for x in found["apps"]] == ["web"]
    assert found["hosts"] == ["one"]
    assert home.snapshot.stat().st_mode & 0o777 == 0o600


def test_where_nothing_can_be_written_nothing_fails(tmp_path):
    home = Home(tmp_path / "none")
    snapshot.keep_apps(home, CONFIG)
    snapshot.Snapshots(home, dict).write()
    assert not home.root.exists()


async def test_what_changes_together_is_written_once(tmp_path):
    home, collected = made(tmp_path), []

    def collect() -> dict:
        collected.append(1)
        return {"hosts": ["one"]}

    snapshots = snapshot.Snapshots(home, collect)
    for _ in range(5):
        snapshots.changed()
    while not home.snapshot.exists():
        await asyncio.sleep(0.01)
    assert len(collected) == 1
    assert json.loads(home.snapshot.read_bytes()) == {"hosts": ["one"]}
    assert [x.name for x in home.snapshot.parent.glob("completion*")] == ["completion.json"]


def test_names_of_nodes_are_those_of_the_user_and_of_the_last_look(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "addresses.json").write_text('{"office": "KEY1"}')
    (tmp_path / "state" / "nodes.json").write_text('{"KEY1": "beta", "KEY2": "alpha", "KEY3": 3}')
    assert stored.snapshot(str(tmp_path), {})["nodes"] == ["alpha", "beta", "office"]
    (tmp_path / "addresses.json").write_text("[")
    assert stored.snapshot(str(tmp_path), {})["nodes"] == ["alpha", "beta"]
