"""The tables of a node: labels are worth something only from the neighbour they were made for."""

import itertools

import pytest

from nodes import wire
from nodes.mesh import (
    EXPIRES_AFTER,
    MAX_LABELS,
    Action,
    Closed,
    Mesh,
    NoSuchNeighbour,
    Onward,
    Relay,
    Send,
    TableFull,
    Way,
)
from nodes.wire import Code


def node(*neighbours: str) -> Mesh:
    counter = itertools.count(100)
    mesh = Mesh(lambda: next(counter))
    for neighbour in neighbours:
        mesh.link_up(neighbour)
    return mesh


def ended(mesh: Mesh, neighbour: str, onward: Onward | None = None) -> tuple[Way, int]:
    """A route that ends here and comes from `neighbour`."""
    way = Way("route", "peer", onward)
    return way, mesh.end(way, neighbour)


def relayed(mesh: Mesh) -> tuple[int, int]:
    """A route a - own - b; returns the labels that a and b must use."""
    from_b = mesh.relay("route", "b", Onward("a", 1))
    from_a = mesh.relay("route", "a", Onward("b", 2))
    return from_a, from_b


def closes(actions: list[Action]) -> list[tuple[str, bytes]]:
    return [(a.neighbour, a.frame) for a in actions if isinstance(a, Send)]


def test_a_label_holds_only_for_its_neighbour() -> None:
    mesh = node("a", "b", "c")
    from_a, from_b = relayed(mesh)
    assert isinstance(mesh.tables["a"].get(from_a), Relay)
    assert from_a not in mesh.tables["b"]
    assert from_a not in mesh.tables["c"]
    assert from_b not in mesh.tables["a"]


def test_a_stranger_cannot_close_a_route_by_its_label() -> None:
    mesh = node("a", "b", "c")
    from_a, _ = relayed(mesh)
    assert mesh.closed("c", from_a, Code.LINK_LOST) == []
    assert from_a in mesh.tables["a"]


def test_labels_are_drawn_again_when_taken() -> None:
    labels = iter([7, 7, 8])
    mesh = Mesh(lambda: next(labels))
    mesh.link_up("a")
    mesh.link_up("b")
    assert mesh.relay("one", "a", Onward("b", 1)) == 7
    assert mesh.relay("two", "a", Onward("b", 1)) == 8


def test_a_route_needs_both_links() -> None:
    with pytest.raises(NoSuchNeighbour):
        node("a").relay("route", "a", Onward("b", 1))
    with pytest.raises(NoSuchNeighbour):
        node("b").relay("route", "a", Onward("b", 1))
    with pytest.raises(NoSuchNeighbour):
        ended(node("b"), "a")
    with pytest.raises(NoSuchNeighbour):
        ended(node("a"), "a", Onward("b", 1))


def test_a_neighbour_gets_only_so_many_labels() -> None:
    mesh = node("a", "b")
    for number in range(MAX_LABELS):
        mesh.relay(str(number), "a", Onward("b", 1))
    with pytest.raises(TableFull):
        mesh.relay("one more", "a", Onward("b", 1))


def test_a_lost_link_is_told_to_the_other_side_and_forgotten() -> None:
    mesh = node("a", "b")
    from_a, _ = relayed(mesh)
    assert closes(mesh.link_down("b")) == [("a", wire.close(1, Code.LINK_LOST))]
    assert from_a not in mesh.tables["a"]
    assert "b" not in mesh.tables


def test_a_lost_link_ends_the_routes_over_it() -> None:
    mesh = node("a", "b")
    way, _ = ended(mesh, "a", Onward("a", 5))
    assert mesh.link_down("b") == []
    assert mesh.link_down("a") == [Closed(way, Code.LINK_LOST, mesh.said_by)]


def test_a_route_whose_way_out_is_lost_ends_too() -> None:
    mesh = node("a", "b")
    ended(mesh, "a", Onward("b", 5))
    assert [type(action) for action in mesh.link_down("b")] == [Closed]
    assert mesh.tables["a"] == {}


def test_close_travels_on_and_takes_both_directions_along() -> None:
    mesh = node("a", "b")
    from_a, from_b = relayed(mesh)
    actions = mesh.closed("a", from_a, Code.PROTOCOL)
    assert closes(actions) == [("b", wire.close(2, Code.PROTOCOL))]
    assert mesh.tables == {"a": {}, "b": {}}
    assert mesh.closed("b", from_b, Code.PROTOCOL) == []


def test_close_ends_a_route_and_says_whose_word_it_is() -> None:
    mesh = node("a")
    way, label = ended(mesh, "a")
    key = bytes(range(32))
    assert mesh.closed("a", label, Code.LINK_LOST, key) == [Closed(way, Code.LINK_LOST, key)]
    assert mesh.tables == {"a": {}}


def test_several_routes_to_one_peer_stand_side_by_side() -> None:
    mesh = node("a", "b")
    first, second = Way("one", "peer"), Way("two", "peer")
    assert mesh.tables["a"].get(mesh.end(first, "a")) is first
    assert mesh.tables["b"].get(mesh.end(second, "b")) is second
    assert mesh.remove("one", Code.DONE) == [Closed(first, Code.DONE)]
    assert list(mesh.tables["b"].values()) == [second]


def test_a_way_out_is_bound_only_to_the_route_it_belongs_to() -> None:
    mesh = node("a")
    way, _ = ended(mesh, "a")
    assert mesh.bind("other", "peer", Onward("a", 9)) is None
    assert mesh.bind("route", "nobody", Onward("a", 9)) is None
    assert mesh.bind("route", "peer", Onward("gone", 9)) is None
    assert mesh.bind("route", "peer", Onward("a", 9)) is way
    assert way.onward == Onward("a", 9)


def test_giving_a_route_up_tells_those_on_it() -> None:
    mesh = node("a")
    way, _ = ended(mesh, "a", Onward("a", 9))
    assert mesh.hang_up(way, Code.TIMEOUT) == [
        Send("a", wire.close(9, Code.TIMEOUT)),
        Closed(way, Code.TIMEOUT),
    ]


def test_an_answer_goes_back_the_other_way_along_the_same_route() -> None:
    mesh = node("a", "b")
    from_a, from_b = relayed(mesh)
    assert mesh.back(mesh.tables["a"][from_a], "a") == Onward("a", 1)
    assert mesh.back(mesh.tables["b"][from_b], "b") == Onward("b", 2)
    assert mesh.back(mesh.tables["a"][from_a], "c") is None


def test_a_relayed_route_is_forgotten_when_nothing_comes_any_more() -> None:
    mesh = node("a", "b")
    from_a, from_b = relayed(mesh)
    for tick in range(3 * EXPIRES_AFTER):
        mesh.tick()
        if tick % EXPIRES_AFTER == 0:
            entry = mesh.tables["a"][from_a]
            assert isinstance(entry, Relay)
            entry.frames += 1  # one direction is enough
    assert from_b in mesh.tables["b"]
    for _ in range(EXPIRES_AFTER + 2):
        mesh.tick()
    assert mesh.tables == {"a": {}, "b": {}}


def test_an_overrun_route_is_closed_towards_both_ends() -> None:
    mesh = node("a", "b")
    from_a, _ = relayed(mesh)
    relay = mesh.tables["a"][from_a]
    assert isinstance(relay, Relay)
    told = closes(mesh.overrun(relay))
    assert sorted(told) == [
        ("a", wire.close(1, Code.PROTOCOL)),
        ("b", wire.close(2, Code.PROTOCOL)),
    ]
    assert mesh.tables == {"a": {}, "b": {}}
