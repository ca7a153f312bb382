"""The manager's picture of the mesh."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.manager.topology import FORGET_AFTER, Change, NameTaken, Topology


def network(*links: str) -> Topology:
    """From links like "ab"; every node is named like its key in capitals."""
    topology = Topology()
    for key in sorted(set("".join(links))):
        topology.register(key, key.upper(), "tcp://x", set(), 0.0)
    for a, b in links:
        topology.link(a, b, up=True)
    return topology


def test_the_shortest_way_is_found() -> None:
    assert network("ab", "bc", "cd", "ad").path("a", "c") in (["a", "b", "c"], ["a", "d", "c"])
    assert network("ab", "bc").path("a", "c") == ["a", "b", "c"]
    assert network("ab").path("a", "b") == ["a", "b"]


def test_there_may_be_no_way() -> None:
    assert network("ab", "cd").path("a", "d") is None
    assert network("ab").path("a", "zz") is None


def test_one_end_saying_so_makes_a_link_and_either_unmakes_it() -> None:
    topology = network("ab")
    assert topology.path("b", "a") == ["b", "a"]
    assert topology.link("b", "a", up=False) == [Change("b", "a", up=False)]
    assert topology.path("a", "b") is None


def test_a_link_to_a_stranger_is_no_link_until_it_registers() -> None:
    topology = network("ab")
    topology.link("a", "new", up=True)
    assert topology.path("b", "new") is None
    changes = topology.register("new", "NEW", "tcp://x", set(), 0.0)
    assert changes == [Change("new", None, up=True), Change("new", "a", up=True)]
    assert topology.path("b", "new") == ["b", "a", "new"]


def test_registering_again_tells_only_what_changed() -> None:
    topology = network("ab", "bc")
    assert topology.register("b", "B", "tcp://x", {"a", "c"}, 1.0) == []
    assert topology.register("b", "B", "tcp://y", {"a"}, 2.0) == [Change("b", "c", up=False)]
    found = topology.find("B")
    assert found is not None
    assert found.endpoint == "tcp://y"


def test_names_belong_to_the_first_key_until_it_is_gone() -> None:
    topology = network("ab")
    with pytest.raises(NameTaken):
        topology.register("c", "A", "tcp://x", set(), 1.0)
    topology.expire(FORGET_AFTER + 1)
    topology.register("c", "A", "tcp://x", set(), FORGET_AFTER + 2)
    found = topology.find("A")
    assert found is not None
    assert found.key == "c"


def test_a_node_may_change_its_name() -> None:
    topology = network("ab")
    topology.register("a", "Z", "tcp://x", {"b"}, 1.0)
    assert topology.find("A") is None
    assert topology.find("Z") is topology.find("a")


def test_silent_nodes_are_forgotten_with_their_links() -> None:
    topology = network("ab")
    topology.register("b", "B", "tcp://x", {"a"}, 10.0)
    assert topology.expire(FORGET_AFTER + 1) == [
        Change("a", "b", up=False),
        Change("a", None, up=False),
    ]
    assert list(topology.nodes) == ["b"]


@given(st.sets(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef"))))
def test_a_path_uses_links_once_and_is_as_short_back(pairs: set[tuple[str, str]]) -> None:
    topology = network(*{a + b for a, b in pairs if a != b}, "ab")
    for goal in topology.nodes:
        path = topology.path("a", goal)
        back = topology.path(goal, "a")
        assert (path is None) == (back is None)
        if path is not None and back is not None:
            assert len(path) == len(back) == len(set(path))
            assert all(topology.path(x, y) == [x, y] for x, y in itertools.pairwise(path))
