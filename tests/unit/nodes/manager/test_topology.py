"""The manager's picture of the mesh."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.api import LinkState, Registration
from nodes.manager import topology as topologies
from nodes.manager.topology import (
    FLAP_HALF_LIFE,
    FORGET_AFTER,
    MAX_FLAPS,
    Change,
    Edge,
    NameTaken,
    Topology,
)
from tests.support.topology import network, report


def test_a_link_counts_when_both_ends_report_it() -> None:
    topology = network("ab")
    assert set(topology.graph["a"]) == {"b"}
    assert topology.graph["a"]["b"] is topology.graph["b"]["a"]


def test_a_link_that_only_one_end_reports_is_none() -> None:
    topology = network()
    topology.register("a", report("a", "b"), 0.0)
    assert topology.register("b", report("b"), 0.0) == [Change("b", None, up=True)]
    assert topology.graph == {"a": {}, "b": {}}
    assert topology.register("b", report("b", "a"), 0.0) == [Change("b", "a", up=True)]


def test_either_end_unmakes_a_link() -> None:
    topology = network("ab")
    assert topology.link("b", "a", up=False, now=1.0) == [Change("b", "a", up=False)]
    assert topology.register("a", report("a", "b"), 2.0) == []
    assert not topology.graph["a"]
    assert topology.link("b", "a", up=True, now=3.0) == [Change("b", "a", up=True)]


def test_a_link_to_a_stranger_is_no_link_until_it_registers() -> None:
    topology = network("ab")
    topology.link("a", "new", up=True, now=0.0)
    changes = topology.register("new", report("new", "a"), 0.0)
    assert changes == [Change("new", None, up=True), Change("new", "a", up=True)]


def test_nobody_links_to_itself() -> None:
    topology = network()
    topology.register("a", report("a", "a"), 0.0)
    topology.link("a", "a", up=True, now=0.0)
    assert topology.graph == {"a": {}}


def test_links_of_a_node_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topologies, "MAX_LINKS", 2)
    topology = network("ab", "bc", "cd", "ad")
    topology.link("d", "b", up=True, now=0.0)
    assert topology.link("b", "d", up=True, now=0.0) == []
    assert set(topology.graph["b"]) == {"a", "c"}


def test_registering_again_tells_only_what_changed() -> None:
    topology = network("ab", "bc")
    assert topology.register("b", report("b", "a", "c"), 1.0) == []
    assert topology.register("b", report("b", "a"), 2.0) == [Change("b", "c", up=False)]


def test_names_belong_to_the_first_key_until_it_is_gone() -> None:
    topology = network("ab")
    taken = Registration("A", "tcp://x", bytes(16), 0, 0)
    with pytest.raises(NameTaken):
        topology.register("c", taken, 1.0)
    topology.expire(FORGET_AFTER + 1)
    topology.register("c", taken, FORGET_AFTER + 2)
    found = topology.find("A")
    assert found is not None
    assert found.key == "c"


def test_a_node_may_change_its_name() -> None:
    topology = network("ab")
    topology.register("a", Registration("Z", "tcp://x", bytes(16), 0, 0), 1.0)
    assert topology.find("A") is None
    assert topology.find("Z") is topology.find("a")


def test_silent_nodes_are_forgotten_with_their_links() -> None:
    topology = network("ab")
    topology.register("b", report("b", "a"), 10.0)
    assert topology.expire(FORGET_AFTER + 1) == [
        Change("a", "b", up=False, silent=True),
        Change("a", None, up=False, silent=True),
    ]
    assert topology.graph == {"b": {}}
    # And when it speaks again, the link is there as the other end still reports it.
    assert Change("a", "b", up=True) in topology.register("a", report("a", "b"), 14.0)


def test_the_worse_of_two_measurements_counts() -> None:
    edge = Edge(("a", "b"))
    edge.measured(
        LinkState("b", rtt=0.010, rate=1e6, used=1e5, queued=2e5, retransmits=1.0),
        LinkState("a", rtt=0.040, rate=2e6, used=5e5, queued=0.0, retransmits=0.0),
    )
    assert (edge.rtt, edge.rate, edge.load, edge.wait) == (0.040, 1e6, 0.5, 0.2)
    assert edge.delay == pytest.approx(0.040 + 0.2 + 0.01 + 0.001)


def test_an_unmeasured_link_comes_after_all_that_are_measured() -> None:
    unknown, slow = Edge(("a", "b")), Edge(("a", "b"))
    unknown.measured(LinkState("b"), None)
    slow.measured(LinkState("b", rtt=0.9), None)
    assert unknown.delay > slow.delay


def test_a_link_that_flaps_costs_more_for_a_while() -> None:
    topology = network("ab")
    quiet = topology.graph["a"]["b"].delay
    for second in range(40):
        topology.link("a", "b", up=False, now=float(second))
        topology.link("a", "b", up=True, now=float(second))
    edge = topology.graph["a"]["b"]
    assert MAX_FLAPS / 2 < edge.flaps <= MAX_FLAPS
    shaky = edge.delay
    assert shaky > quiet
    topology.register("a", report("a", "b"), 40 + 3 * FLAP_HALF_LIFE)
    assert quiet < edge.delay < quiet + (shaky - quiet) / 4


number = st.floats(allow_nan=True, allow_infinity=True) | st.none()


@given(st.lists(st.tuples(number, number, number, number, number), min_size=2, max_size=2))
def test_no_number_of_a_peer_makes_a_cost_that_is_none(
    said: list[tuple[float | None, ...]],
) -> None:
    edge = Edge(("a", "b"))
    states = [
        LinkState("x", rtt, 0.0, lost or 0.0, rate, used or 0.0, queued or 0.0)
        for rtt, lost, rate, used, queued in said
    ]
    edge.measured(*states)
    assert 0 < edge.delay < 20
    assert math.isfinite(edge.load)


links = st.sets(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), max_size=8)


@given(st.lists(st.tuples(st.sampled_from("abcd"), links, st.integers(0, 30)), max_size=30))
def test_the_graph_is_what_both_ends_said_last(
    steps: list[tuple[str, set[tuple[str, str]], int]],
) -> None:
    topology, now = Topology(), 0.0
    said: dict[str, set[str]] = {}
    for key, pairs, pause in steps:
        now += pause
        topology.expire(now)
        said = {k: v for k, v in said.items() if k in topology.nodes}
        said[key] = {b for a, b in pairs if a == key != b}
        topology.register(key, report(key, *said[key]), now)
        assert {k: set(near) for k, near in topology.graph.items()} == {
            k: {other for other in said[k] if k in said.get(other, ())} for k in said
        }
