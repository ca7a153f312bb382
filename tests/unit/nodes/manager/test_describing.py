"""What people are told of the mesh: as much as they want, and no more than a message holds."""

import pytest

from bus.identity import from_bytes
from bus.sending import DEFAULT_PAYLOAD
from nodes import api
from nodes.api import LinkState, Registration
from nodes.manager import describing
from nodes.manager.topology import MAX_LINKS, Topology
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
    assert not shown.next


def test_what_nobody_wants_is_left_out() -> None:
    shown = told(mesh(), api.Look(routes=False, edges=False))
    assert len(shown.nodes) == 4
    assert not shown.routes
    assert not shown.edges


@pytest.mark.parametrize("room", [1, 500, 1000, 1_000_000])
def test_page_by_page_all_is_told_once(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr(describing, "PAGE", room)
    found = mesh()
    pages, look = [], api.Look()
    while not pages or look.after:
        pages.append(told(found, look))
        look = api.Look(after=pages[-1].next)
    assert [node.key for page in pages for node in page.nodes] == list("abcd")
    assert len([route for page in pages for route in page.routes]) == 2
    links = [(edge.a, edge.b) for page in pages for edge in page.edges]
    assert links == [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]
    assert (len(pages) > 1) == (room < 1_000_000)


def test_a_page_fits_into_a_message_however_large_the_mesh_is_and_whatever_nodes_claim() -> None:
    """Some claim as many links as one may, and others have the longest of names."""
    topology = Topology()
    keys = [new_key(number) for number in range(300)]
    claimed = [LinkState(new_key(number)) for number in range(1000, 1000 + MAX_LINKS)]
    for number, key in enumerate(keys):
        links = claimed if number % 50 == 0 else [LinkState(keys[number - 1])]
        name, place = f"n{number:031}", "tcp://" + "ä" * 250
        topology.register(key, Registration(name, place, bytes(16), 0, 0, links), 0.0)
    found, look, seen = Ordered(topology), api.Look(), 0
    while True:
        page = told(found, look)
        seen += len(page.nodes)
        assert len(api.pack(page)) < DEFAULT_PAYLOAD
        if not page.next:
            break
        look = api.Look(after=page.next)
    assert seen == len(keys)


def new_key(number: int) -> str:
    return from_bytes(number.to_bytes(32, "big"))
