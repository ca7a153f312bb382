"""Which links the manager suggests."""

from nodes.manager.suggesting import suggest
from nodes.manager.topology import Topology
from tests.support.topology import network, report


def suggested(topology: Topology, key: str) -> list[str]:
    return [node.key for node in suggest(topology, topology.nodes[key])]


def test_a_node_hears_of_as_many_as_it_would_take_those_with_few_links_first() -> None:
    topology = network("bc", "cd", "bd", "de")
    topology.register("a", report("a", auto=2), 0.0)
    topology.register("f", report("f"), 0.0)
    first, second = suggested(topology, "a")
    assert (first, second) == ("f", "e")
    assert suggested(topology, "a") == [first, second]  # and the same again


def test_who_wants_none_or_has_enough_hears_of_none() -> None:
    topology = network("bc")
    topology.register("a", report("a"), 0.0)
    assert suggested(topology, "a") == []
    topology.register("a", report("a", "b", "c", auto=2), 0.0)
    assert suggested(topology, "a") == []


def test_nodes_that_cannot_be_dialled_and_neighbours_are_not_suggested() -> None:
    topology = network("bc")
    topology.register("a", report("a", "b", auto=8), 0.0)
    topology.nodes["c"].endpoint = ""
    assert suggested(topology, "a") == []
