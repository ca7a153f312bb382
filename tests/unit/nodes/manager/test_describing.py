"""What people are told of the mesh: as much as they want, and no more than a message holds."""

from nodes import api
from nodes.manager import describing
from tests.support.planned import Ordered
from tests.support.topology import network


def mesh() -> Ordered:
    found = Ordered(network("ab", "bd", "ac", "cd"))
    found.wanted("ad")
    return found


def told(found: Ordered, look: api.Look) -> api.Nodes:
    return describing.nodes(found.topology, found.planner, look)


def test_nodes_links_and_routes_are_told() -> None:
    shown = told(mesh(), api.Look())
    assert {node.key for node in shown.nodes} == set("abcd")
    assert {frozenset((edge.a, edge.b)) for edge in shown.edges} == {
        frozenset(link) for link in ("ab", "bd", "ac", "cd")
    }
    assert sorted(route.active for route in shown.routes) == [False, True]
    assert not shown.left


def test_what_nobody_wants_is_left_out() -> None:
    shown = told(mesh(), api.Look(routes=False, edges=False))
    assert len(shown.nodes) == 4
    assert not shown.routes
    assert not shown.edges


def test_what_does_not_fit_is_counted(monkeypatch) -> None:
    monkeypatch.setattr(api, "MAX_TOLD", 1)
    shown = told(mesh(), api.Look())
    assert (len(shown.routes), len(shown.edges), shown.left) == (1, 1, 4)
