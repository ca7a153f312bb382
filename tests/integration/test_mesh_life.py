"""A whole mesh on one clock: how long it takes to go around a failure, and that nothing is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.whole_mesh import WholeMesh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.talks import Conversation

SQUARE = ("ab", "bd", "ac", "cd")
AROUND = 4.0  # s: dead after 3 s without a sign of life, and a moment


@pytest.fixture
def square() -> Iterator[WholeMesh]:
    """a and d have two ways to each other, over b and over c."""
    mesh = WholeMesh("abcd")
    try:
        for a, b in SQUARE:
            mesh.link(a, b)
        mesh.run(4.0)
        yield mesh
    finally:
        mesh.close()


def used(mesh: WholeMesh, end: str, peer: str) -> str:
    """The neighbour over which one end sends to another."""
    way = mesh.nodes[end].engine.sessions[mesh.nodes[peer].key].ways.used
    assert way is not None
    assert way.onward is not None
    return next(name for name, node in mesh.nodes.items() if node.key == way.onward.neighbour)


def talking(mesh: WholeMesh) -> Conversation:
    talk = mesh.talk("a", "d")
    talk.say(0, 1000)
    talk.say(1, 1000)
    mesh.run(5.0)
    assert talk.complete
    return talk


def goes_on(mesh: WholeMesh, talk: Conversation, within: float) -> None:
    talk.say(0, 100_000)
    talk.say(1, 100_000)
    mesh.run(within)
    assert talk.complete


@pytest.mark.parametrize("managed", [True, False])
@pytest.mark.parametrize("how", ["cut", "silence", "swallow", "change", "starve"])
def test_a_stream_goes_around_a_relay_that_fails(
    square: WholeMesh, how: str, *, managed: bool
) -> None:
    talk = talking(square)
    relay = used(square, "a", "d")
    if not managed:
        square.kill_manager()
    if how == "cut":
        square.kill(relay)
    elif how == "silence":
        for link in square.nodes[relay].links.values():
            link.partition()
    else:
        square.nodes[relay].foul = how
    # Who swallows data only is noticed when what was told later has come, by the next tick.
    goes_on(square, talk, AROUND + 1 if how == "starve" else AROUND)
    assert used(square, "a", "d") != relay or how == "change"
    assert talk.near.code is None


def test_both_ends_use_the_same_way_when_the_order_to_switch_was_lost(square: WholeMesh) -> None:
    talk = talking(square)
    square.broker.away.add(square.nodes["d"].key)
    square.nodes["a"].engine.links[square.nodes[used(square, "a", "d")].key].cut("pulled")
    square.run(10.0)
    square.broker.away.clear()
    goes_on(square, talk, 60.0)
    assert used(square, "a", "d") == used(square, "d", "a")


def test_what_two_nodes_have_no_use_for_any_more_is_taken_down_everywhere(
    square: WholeMesh,
) -> None:
    talk = talking(square)
    square.run(700.0)  # a stream stands
    assert any(node.engine.mesh.tables for node in square.nodes.values())
    assert square.nodes["a"].engine.sessions
    talk.hang_up()
    square.run(720.0)
    for node in square.nodes.values():
        assert not any(node.engine.mesh.tables.values())
        assert not node.engine.mesh._routes
        assert not node.engine.sessions
    assert square.manager is not None
    assert not square.manager._planner.pairs
    talking(square)


def test_streams_live_through_managers_that_come_and_go(square: WholeMesh) -> None:
    talk = talking(square)
    for _ in range(5):
        square.kill_manager()
        square.run(20.0)
        square.start_manager()
        goes_on(square, talk, 10.0)
    assert square.manager is not None
    (pair,) = square.manager._planner.pairs.values()
    assert pair.active is not None
    assert pair.standby is not None
    assert talk.near.code is None


def test_new_keys_are_made_while_bytes_flow_both_ways(square: WholeMesh) -> None:
    talk = talking(square)
    peer = square.nodes["d"].key
    epochs = set()
    for _ in range(40):
        goes_on(square, talk, 10.0)
        epochs.add(square.nodes["a"].engine.sessions[peer].keys.epoch)
    assert len(epochs) >= 3
    assert talk.near.code is None
