"""`viscript node …` as a user types it, against a mesh of real nodes: what is seen, measured and chosen."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bus import connect, keystore
from bus.identity import to_hex
from nodes.client import PortTaken, StreamRefused, connect_node
from nodes.seen import SPEED_PORT
from nodes.speed import MAX_COUNTED
from tests.support.instance import until
from tests.support.mesh import Mesh, running_mesh
from viscript.contexts import Context, Contexts

COMMAND = [sys.executable, "-P", "-m", "viscript.cli", "node"]
SQUARE = {"b": [], "c": [], "a": ["b", "c"], "d": ["b", "c"]}
LINKED = (("a", "b"), ("a", "c"), ("d", "b"), ("d", "c"))
PEOPLE = {"chief": "admin", "worker": "operator", "guest": "observer"}


class Desk:
    """Somebody with a context for each key of the mesh."""

    def __init__(self, mesh: Mesh, folder: Path) -> None:
        self.mesh = mesh
        self.folder = folder
        contexts = Contexts(folder / "config" / "viscript")
        for name in PEOPLE:
            file = str(mesh.folder / f"{name}.key")
            contexts.save(name, Context(mesh.address.endpoint, mesh.address.key, file))
        kept = {k: v for k, v in os.environ.items() if not k.startswith("VISCRIPT_")}
        self.environment = {
            **kept,
            "XDG_CONFIG_HOME": str(folder / "config"),
            "VISCRIPT_HOME": str(folder / "home"),
        }

    def command(self, *arguments: str, by: str = "worker") -> list[str]:
        return [*COMMAND, "--context", by, *arguments]

    def run(self, *arguments: str, by: str = "worker", code: int = 0) -> str:
        done = subprocess.run(
            self.command(*arguments, by=by), env=self.environment, capture_output=True, text=True,
            timeout=50, check=False,
        )  # fmt: skip
        assert done.returncode == code, (arguments, done)
        return done.stdout if code == 0 else done.stderr

    def ask(self, *arguments: str, by: str = "worker"):
        return json.loads(self.run(*arguments, "--json", by=by))

    def key(self, name: str) -> str:
        return self.mesh.key(name)

    def goes_over(self, middle: str) -> None:
        """Wait until what a sends to d goes over `middle`."""
        until(lambda: self.ask("trace", "d", "--at", "a")["hops"][0]["key"] == self.key(middle))


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Iterator[Desk]:
    with running_mesh(SQUARE, spare=["evil"], people=PEOPLE) as mesh:
        asyncio.run(mesh.linked(*LINKED))
        yield Desk(mesh, tmp_path_factory.mktemp("desk"))


# Seeing ------------------------------------------------------------------------------------------


def test_all_nodes_are_listed_with_their_links(desk: Desk):
    rows = {row["name"]: row for row in desk.ask("ls")}
    assert set(rows) == set(SQUARE)
    assert set(rows["a"]["links"]) == {desk.key("b"), desk.key("c")}
    assert "NODE" in desk.run("ls")


def test_a_node_is_shown_in_full(desk: Desk):
    shown = desk.ask("show", "a")
    assert shown["status"]["key"] == shown["node"]["key"] == desk.key("a")
    assert {peer["name"] for peer in shown["peers"]} == {"b", "c"}
    assert desk.key("a") in desk.run("show", "a")


def test_neighbours_are_shown_with_what_was_measured(desk: Desk):
    peers = {peer["name"]: peer for peer in desk.ask("peers", "a")}
    assert set(peers) == {"b", "c"}
    assert all(peer["up"] and peer["dialled"] for peer in peers.values())
    assert all(peer["kind"] == "persistent" for peer in peers.values())
    assert not any(peer["dialled"] for peer in desk.ask("peers", "b"))


def test_what_traffic_leaves_behind_is_seen_everywhere(desk: Desk):
    desk.run("ping", "d", "--at", "a")
    (route,) = [x for x in desk.ask("routes") if x["active"] and desk.key("d") in x["path"]]
    middle = route["path"][1]
    ways = desk.ask("routes", "a")["ways"]
    assert route["route"] in {way["route"] for way in ways if way["used"]}
    relays = desk.ask("routes", middle)["relays"]
    assert route["route"] in {relay["route"] for relay in relays}
    (session,) = [x for x in desk.ask("sessions", "a") if x["peer"] == desk.key("d")]
    assert session["up"]
    assert session["route"] == route["route"]
    for table in ("routes", "sessions", "streams"):
        assert desk.run(table, "a")


def test_the_map_is_a_picture_a_text_and_a_document(desk: Desk, tmp_path: Path):
    file = tmp_path / "mesh.svg"
    desk.run("map", "--svg", str(file))
    root = ElementTree.parse(file).getroot()
    names = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert set(SQUARE) <= names
    assert "is there already" in desk.run("map", "--svg", str(file), code=9)
    desk.run("map", "--svg", str(file), "--force")
    assert len(desk.ask("map")["links"]) == len(LINKED)
    assert desk.run("map").count("─ ") + desk.run("map").count("━ ") >= len(LINKED)


def test_the_counters_are_what_a_scraper_reads(desk: Desk):
    families = list(text_string_to_metric_families(desk.run("metrics", "a")))
    values = {s.name: s.value for f in families for s in f.samples if "neighbour" not in s.labels}
    assert values["viscript_node_links"] == 2


# Measuring ---------------------------------------------------------------------------------------


def test_a_ping_tells_the_round_trip_from_end_to_end(desk: Desk):
    found = desk.ask("ping", "d", "--at", "a", "-n", "2", "-i", "0.05")
    assert (found["sent"], found["lost"], len(found["times"])) == (2, 0, 2)
    assert 0 < found["min"] <= found["median"] <= found["max"]
    assert found["key"] == desk.key("d")


def test_a_trace_names_every_node_on_the_way(desk: Desk):
    found = desk.ask("trace", "d", "--at", "a")
    assert [hop["key"] for hop in found["hops"]] == found["path"][1:]
    assert found["hops"][-1]["key"] == desk.key("d")
    assert all(time is not None for hop in found["hops"] for time in hop["times"])
    assert desk.run("trace", "d", "--at", "a").splitlines()[-1].split()[1] == "d"


def test_a_trace_of_the_standby_goes_another_way(desk: Desk):
    used = desk.ask("trace", "d", "--at", "a")
    until(lambda: [x for x in desk.ask("routes") if not x["active"] and desk.key("d") in x["path"]])
    other = desk.ask("trace", "d", "--at", "a", "--standby")
    assert other["hops"][0]["key"] != used["hops"][0]["key"]
    assert other["hops"][-1]["key"] == desk.key("d")


def test_the_speed_is_counted_where_it_arrives_both_ways(desk: Desk):
    lines = desk.run("speed", "d", "--at", "a", "--seconds", "0.3", "--both", "--json").splitlines()
    found = [json.loads(line) for line in lines]
    assert [x["way"] for x in found] == ["there", "back"]
    assert all(x["rate"] > 0 and x["bytes"] > 0 for x in found)
    assert "/s" in desk.run("speed", "d", "--at", "a", "--seconds", "0.2")


def test_a_node_that_hangs_answers_no_ping(desk: Desk):
    desk.run("ping", "b", "--at", "a", "-n", "1")
    process = desk.mesh.processes["b"]
    process.send_signal(signal.SIGSTOP)
    try:
        arguments = ("ping", "b", "--at", "a", "-n", "1", "--wait", "0.5")
        assert "did not answer" in desk.run(*arguments, code=1)
    finally:
        process.send_signal(signal.SIGCONT)


def test_what_cannot_be_meant_is_explained(desk: Desk):
    assert "viscript node ls" in desk.run("ping", "nobody", "--at", "a", code=5)
    assert "--at NODE" in desk.run("ping", "d", code=2)
    assert "itself" in desk.run("ping", "a", "--at", "a", code=5)
    assert "not a metric" in desk.run(
        "route", "policy", "a", "d", "--metric", "best", by="chief", code=2
    )


# Who may what ------------------------------------------------------------------------------------


def test_an_observer_sees_nothing_of_the_mesh(desk: Desk):
    assert "mesh.nodes" in desk.run("ls", by="guest", code=4)


def test_who_may_look_may_not_choose_ways(desk: Desk):
    for change in (("add", "a", "b", "d"), ("free", "a", "d"), ("policy", "a", "d")):
        assert "mesh." in desk.run("route", *change, by="worker", code=4)


# Choosing ----------------------------------------------------------------------------------------


def test_a_route_laid_by_hand_is_used_until_it_is_given_up(desk: Desk):
    for middle in ("b", "c"):
        laid = desk.ask("route", "add", "a", middle, "d", by="chief")
        assert sorted(laid["path"]) == sorted(desk.key(name) for name in ("a", middle, "d"))
        desk.goes_over(middle)
        assert "by hand" in desk.run("why", "d", "--at", "a")
        (wish,) = desk.ask("route", "ls")
        assert sorted(wish["by_hand"]) == sorted(laid["path"])
        assert f"by hand: a - {middle} - d" in desk.run("route", "ls").replace(
            f"d - {middle} - a", f"a - {middle} - d"
        )
    desk.run("route", "free", "a", "d", by="chief")
    assert not desk.ask("why", "d", "--at", "a")["by_hand"]
    assert "no link" in desk.run("route", "add", "a", "d", by="chief", code=9)


def test_a_policy_keeps_traffic_away_from_a_node(desk: Desk):
    for avoided in ("b", "c", "b"):
        laid = desk.ask("route", "policy", "a", "d", "--avoid", avoided, by="chief")
        assert desk.key(avoided) not in laid["path"]
        desk.goes_over("c" if avoided == "b" else "b")
        assert desk.ask("why", "d", "--at", "a")["policy"]["avoid"] == [desk.key(avoided)]
    for shown in (desk.run("why", "d", "--at", "a"), desk.run("route", "ls")):
        assert "the fastest way around b" in shown
    desk.run("route", "policy", "a", "d", by="chief")
    assert desk.ask("route", "ls") == []


# Names -------------------------------------------------------------------------------------------


def test_a_name_of_the_users_own_comes_before_what_a_node_calls_itself(desk: Desk):
    desk.run("name", "set", "office", "b")
    desk.run("name", "set", "c", "b")  # c is another node's own name
    try:
        assert desk.ask("ping", "c", "--at", "a", "-n", "1")["key"] == desk.key("b")
        assert {x["name"] for x in desk.ask("name", "ls")} == {"office", "c"}
        assert "--force" in desk.run("name", "set", "office", "d", code=9)
    finally:
        desk.run("name", "rm", "c")
        desk.run("name", "rm", "office")


def test_a_key_stands_for_a_node_also_in_hex(desk: Desk):
    key = desk.key("b")
    for word in (key, to_hex(key)):
        done = desk.run("ping", "--at", "a", "-n", "1", "--json", "--", word)
        assert json.loads(done)["key"] == key


# Events ------------------------------------------------------------------------------------------


def test_what_happens_to_routes_is_shown_as_it_happens(desk: Desk):
    watcher = subprocess.Popen(
        desk.command("events", "--for", "20", "-n", "1", "--json"), env=desk.environment,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        middle = "b"
        while watcher.poll() is None:  # it may not have subscribed yet
            desk.run("route", "add", "a", middle, "d", by="chief")
            middle = "c" if middle == "b" else "b"
        event = json.loads(watcher.communicate()[0])
        assert event["kind"] == "route"
        assert event["state"] in {"up", "down"}
    finally:
        watcher.kill()
        watcher.wait()
        desk.run("route", "free", "a", "d", by="chief")


# Faults and foes ---------------------------------------------------------------------------------


def test_a_node_takes_few_streams_that_are_only_counted(desk: Desk):
    async def crowd() -> list[int]:
        async with connect_node(desk.mesh.socket("a")) as node:
            codes, held = [], []
            for _ in range(MAX_COUNTED + 2):
                try:
                    held.append(await node.open_stream("b", SPEED_PORT))
                except StreamRefused as error:
                    codes.append(error.code)
            for stream in held:
                await stream.aclose()
            return codes

    assert asyncio.run(crowd()) == [1, 1]
    until(lambda: not [x for x in desk.ask("streams", "b") if x["port"] == SPEED_PORT])


def test_the_port_of_the_measurement_is_the_nodes_own(desk: Desk):
    async def listen() -> None:
        async with connect_node(desk.mesh.socket("a")) as node:
            await node.listen(SPEED_PORT)

    with pytest.raises(PortTaken):
        asyncio.run(listen())


@pytest.mark.parametrize(
    "answer", [b"\xc1", b"", b"\x80", msgspec.msgpack.encode({"peers": [{"key": "\x1b[2J" * 9}]})]
)
def test_a_node_that_answers_rubbish_is_named(desk: Desk, answer: bytes):
    async def play() -> subprocess.CompletedProcess[str]:
        pair = keystore.load(desk.mesh.folder / "evil.key")
        async with connect(desk.mesh.address, pair) as bus:
            bus.answer("node.peers", lambda _: answer)
            return await asyncio.to_thread(
                subprocess.run, desk.command("peers", to_hex(pair.public)), env=desk.environment,
                capture_output=True, text=True, timeout=50, check=False,
            )  # fmt: skip

    done = asyncio.run(play())
    assert done.returncode == 1, done
    assert "not understood" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_without_a_manager_what_stands_can_still_be_seen(tmp_path: Path):
    with running_mesh({"a": [], "b": ["a"]}, people=PEOPLE) as mesh:
        asyncio.run(mesh.linked(("a", "b")))
        desk = Desk(mesh, tmp_path)
        desk.run("name", "set", "near", "a")
        desk.run("name", "set", "far", "b")
        desk.run("ping", "far", "--at", "near", "-n", "1")
        mesh.kill("manager")
        assert "viscript start node-manager" in desk.run("ls", code=6)
        assert "viscript start node-manager" in desk.run("ping", "b", "--at", "near", code=6)
        assert desk.ask("ping", "far", "--at", "near", "-n", "1")["lost"] == 0
        assert desk.ask("peers", "near")[0]["key"] == mesh.key("b")
