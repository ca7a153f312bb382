"""What a node does for its manager, by signed orders to a real engine."""

import time
from pathlib import Path

import pytest

from bus import Refused, Request
from bus.keystore import new_keypair
from nodes import api
from nodes.engine import Engine
from nodes.obeying import UNUSED_AFTER, Obedience, WrongManager
from nodes.orders import Bind, Expect, Guard, Install, Order, Prefer, Receiver, Remove, Suggest
from nodes.session import WANTED_FOR

MANAGER, OTHER, NODE, NEAR, PEER = (new_keypair() for _ in range(5))
ROUTE, SECOND = "00" * 8, "11" * 8


class Node:
    """A node with a link to NEAR, and its manager's hand."""

    def __init__(self, folder: Path) -> None:
        self.engine = Engine(NODE)
        self.engine.mesh.link_up(NEAR.public)
        self.pin_file = folder / "node.manager"
        self.expected: set[str] = set()
        self.guard = Guard(NODE.public, bytes(16), MANAGER.public)
        self.obedience = Obedience(self.engine, self.guard, self.expect, self.pin_file)
        self.receiver = Receiver(NODE.public, bytes(16), self.obedience.clock(), 0.0, 0)

    def expect(self, key: str) -> bool:
        self.expected.add(key)
        return key != OTHER.public

    async def do(self, order: Order, route: str = ROUTE) -> bytes:
        signed = self.receiver.sign(MANAGER.secret, route, order, 0.0)
        return await self.obedience.handle(Request(api.ORDER, "anybody", api.pack(signed), 3.0))

    async def end(self, route: str, *, active: bool) -> None:
        await self.do(Install(NEAR.public, peer=PEER.public), route)
        path = [NODE.public, NEAR.public, PEER.public]
        await self.do(Bind(PEER.public, api.Hop(NEAR.public, 7), path, active), route)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_a_route_that_ends_here_stands_until_it_is_removed(node: Node) -> None:
    await node.end(ROUTE, active=True)
    (said,) = node.obedience.standing()
    assert (said.route, said.path[-1], said.active) == (ROUTE, PEER.public, True)
    await node.do(Remove())
    assert node.obedience.standing() == []


async def test_the_preferred_route_is_the_one_that_is_used(node: Node) -> None:
    await node.end(ROUTE, active=True)
    await node.end(SECOND, active=False)
    assert {said.route for said in node.obedience.standing() if said.active} == {ROUTE}
    await node.do(Prefer(PEER.public), SECOND)
    assert {said.route for said in node.obedience.standing() if said.active} == {SECOND}


async def test_a_relay_answers_with_its_label(node: Node) -> None:
    body = await node.do(Install(NEAR.public, onward=api.Hop(NEAR.public, 9)))
    assert api.unpack(body, api.Installed).label in node.engine.mesh.tables[NEAR.public]


@pytest.mark.parametrize(
    ("order", "err"),
    [
        (Install(OTHER.public, peer=PEER.public), "no_link"),
        (Install(NEAR.public), "bad_body"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(node: Node, order: Order, err: str) -> None:
    with pytest.raises(Refused) as caught:
        await node.do(order)
    assert caught.value.err == err


async def test_who_may_not_be_a_neighbour_is_not_expected(node: Node) -> None:
    await node.do(Expect(PEER.public), "")
    with pytest.raises(Refused) as caught:
        await node.do(Expect(OTHER.public), "")
    assert caught.value.err == "not_allowed"


async def test_suggestions_are_passed_on(node: Node) -> None:
    heard: list[list[tuple[str, str]]] = []
    node.obedience.suggested = heard.append
    await node.do(Suggest([]), "")
    assert heard == [[]]


async def test_routes_without_a_stream_are_given_back_after_a_while(node: Node) -> None:
    await node.end(ROUTE, active=True)
    later = time.monotonic() + WANTED_FOR + 1
    assert node.obedience.unused(later) == []
    assert node.obedience.unused(later + UNUSED_AFTER) == []
    assert node.obedience.unused(later + UNUSED_AFTER + 1) == [ROUTE]


def test_the_first_manager_is_remembered_and_no_other_obeyed(node: Node) -> None:
    node.guard.manager = None
    with pytest.raises(WrongManager):
        node.obedience.trust("no key")
    node.obedience.trust(MANAGER.public)
    assert node.pin_file.read_text().strip() == MANAGER.public
    node.obedience.trust(MANAGER.public)
    with pytest.raises(WrongManager, match="remove"):
        node.obedience.trust(OTHER.public)
