"""What a node tells people of itself."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nodes import showing
from nodes.links.peers import Peers
from tests.support.memory_mesh import App, MemoryMesh


@pytest.fixture
def mesh() -> MemoryMesh:
    mesh = MemoryMesh("a", "r", "b")
    mesh.link("a", "r")
    mesh.link("b", "r")
    mesh.route("a", "r", "b")
    mesh.run(2)
    return mesh


def test_a_session_is_shown_with_the_route_it_uses(mesh: MemoryMesh):
    a, b = mesh.engines["a"], mesh.key("b")
    a.ping(b, lambda _: None)
    mesh.run(2)
    shown = showing.sessions(a, mesh.world.now, 1000.0)
    assert [(x.peer, x.up, x.route, x.ways) for x in shown.sessions] == [(b, True, "route-0", 1)]
    assert shown.sessions[0].since >= 1000
    ways = showing.routes(a, lambda _: [a.key, mesh.key("r"), b], mesh.world.now).ways
    assert [(x.route, x.used, x.path[-1]) for x in ways] == [("route-0", True, b)]


def test_a_relay_is_shown_by_who_sends_it_frames(mesh: MemoryMesh):
    mesh.engines["a"].ping(mesh.key("b"), lambda _: None)
    mesh.run(2)
    shown = showing.routes(mesh.engines["r"], lambda _: [], mesh.world.now)
    assert not shown.ways
    ends = {mesh.key("a"), mesh.key("b")}
    assert {(x.neighbour, x.onward) for x in shown.relays} == {tuple(ends), tuple(ends)[::-1]}
    assert all(x.frames > 0 for x in shown.relays)


def test_streams_are_shown_at_both_ends(mesh: MemoryMesh):
    a, b = mesh.engines["a"], mesh.engines["b"]
    b.listeners[80] = far = App()
    mesh.open("a", "b", App(), b"")
    mesh.run(2)
    b.accept(far.pumps[0], b"")
    mesh.run(1)
    (near,) = showing.streams(a, "").streams
    (there,) = showing.streams(b, a.key).streams
    assert (near.port, near.ours, near.state) == (80, True, "open")
    assert (there.port, there.ours, there.number) == (80, False, near.number)
    assert showing.streams(a, a.key).streams == []


def test_neighbours_are_shown_and_those_that_are_only_wanted(mesh: MemoryMesh):
    a, r = mesh.engines["a"], mesh.key("r")
    peers = Peers(a.key, lambda: 0.5)
    peers.add(r, 0.0)
    peers.add("nobody", 0.0)
    peers.link_up(r, 5.0)
    peers.failed("nobody", "it is not there", 6.0)
    shown = showing.peers(a, peers, lambda key: key == r, 100.0).peers
    assert [(x.key, x.up, x.kind, x.since) for x in shown] == [
        (r, True, "persistent", 105.0),
        ("", False, "persistent", None),
    ]
    assert (shown[1].name, shown[1].attempts, shown[1].problem) == ("nobody", 1, "it is not there")


def test_the_figures_are_what_a_scraper_reads(mesh: MemoryMesh):
    text = showing.metrics(mesh.engines["r"], "r", {"unknown_label": 3})
    found = {
        (sample.name, sample.labels.get("what") or sample.labels.get("neighbour")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["viscript_node_links", None] == 2
    assert found["viscript_node_relayed_routes", None] == 2
    assert found["viscript_node_events_total", "unknown_label"] == 3
    assert ("viscript_node_link_sent_bytes_total", mesh.key("a")) in found


def test_the_document_names_every_figure(mesh: MemoryMesh):
    text = (Path(__file__).parents[3] / "docs" / "monitoring.md").read_text()
    nodes = text.partition("## Nodes")[2]
    told = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (.*?) \|", nodes, re.MULTILINE))))
    shown = re.findall(
        r"^# TYPE viscript_node_(\w+)", showing.metrics(mesh.engines["a"], "a", {}), re.MULTILINE
    )
    assert set(shown) == told
