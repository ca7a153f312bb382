"""The tables of a node: labels are worth something only from the neighbour they were made for."""

import itertools

import pytest

from nodes import wire
from nodes.mesh import (
    MAX_LABELS,
    Action,
    Ended,
    Mesh,
    NoSuchNeighbour,
    Onward,
    Relay,
    Send,
    Session,
    TableFull,
)
from nodes.wire import Code, WireError


def node(*neighbours: str) -> Mesh:
    counter = itertools.count(100)
    mesh = Mesh("own", lambda: next(counter))
    for neighbour in neighbours:
        mesh.link_up(neighbour)
    return mesh


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
    mesh = Mesh("own", lambda: next(labels))
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
        node("b").end("route", "a", "peer", None)


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


def test_a_lost_link_ends_the_sessions_over_it() -> None:
    mesh = node("a", "b")
    mesh.end("one", "a", "peer", Onward("a", 5))
    mesh.end("two", "b", "other", Onward("b", 6))
    session = mesh.sessions["peer"]
    assert mesh.link_down("a") == [Ended(session, Code.LINK_LOST)]
    assert list(mesh.sessions) == ["other"]


def test_a_session_whose_way_out_is_lost_ends_too() -> None:
    mesh = node("a", "b")
    mesh.end("one", "a", "peer", Onward("b", 5))
    assert [type(action) for action in mesh.link_down("b")] == [Ended]
    assert mesh.tables["a"] == {}


def test_close_travels_on_and_takes_both_directions_along() -> None:
    mesh = node("a", "b")
    from_a, from_b = relayed(mesh)
    actions = mesh.closed("a", from_a, Code.PROTOCOL)
    assert closes(actions) == [("b", wire.close(2, Code.PROTOCOL))]
    assert mesh.tables == {"a": {}, "b": {}}
    assert mesh.closed("b", from_b, Code.PROTOCOL) == []


def test_close_ends_a_session() -> None:
    mesh = node("a")
    label, _ = mesh.end("route", "a", "peer", None)
    session = mesh.sessions["peer"]
    assert mesh.closed("a", label, Code.LINK_LOST) == [Ended(session, Code.LINK_LOST)]
    assert mesh.sessions == {}


def test_a_new_route_to_a_peer_replaces_the_old() -> None:
    mesh = node("a", "b")
    old_label, _ = mesh.end("old", "a", "peer", None)
    old = mesh.sessions["peer"]
    label, actions = mesh.end("new", "b", "peer", None)
    assert actions == [Ended(old, Code.LINK_LOST)]
    assert old_label not in mesh.tables["a"]
    assert mesh.tables["b"][label] is mesh.sessions["peer"]


def test_a_way_out_is_bound_only_to_the_route_it_belongs_to() -> None:
    mesh = node("a")
    mesh.end("route", "a", "peer", None)
    assert mesh.bind("other", "peer", Onward("a", 9)) is None
    assert mesh.bind("route", "nobody", Onward("a", 9)) is None
    assert mesh.bind("route", "peer", Onward("gone", 9)) is None
    session = mesh.bind("route", "peer", Onward("a", 9))
    assert session is not None
    assert session.onward == Onward("a", 9)


def test_hanging_up_tells_the_far_end() -> None:
    mesh = node("a")
    mesh.end("route", "a", "peer", Onward("a", 9))
    session = mesh.sessions["peer"]
    assert mesh.hang_up(session, Code.PROTOCOL) == [
        Send("a", wire.close(9, Code.PROTOCOL)),
        Ended(session, Code.PROTOCOL),
    ]


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


def test_the_two_ends_number_their_streams_apart() -> None:
    one, other = Mesh("A", lambda: 1), Mesh("B", lambda: 1)
    for mesh, peer in ((one, "B"), (other, "A")):
        mesh.link_up(peer)
        mesh.end("route", peer, peer, None)
    numbers = {
        one.sessions["B"].flows.open(1, b"").number,
        other.sessions["A"].flows.open(1, b"").number,
    }
    assert numbers == {1, 2}


@pytest.mark.parametrize("counter", [0, 1, 3])
def test_frames_that_are_missing_or_repeated_break_the_session(counter: int) -> None:
    mesh = node("a")
    mesh.end("route", "a", "peer", None)
    session: Session = mesh.sessions["peer"]
    session.check_in(1)
    with pytest.raises(WireError, match="where 2 was due"):
        session.check_in(counter)
