"""Who gives a lease first, and what ends one."""

import asyncio

import pytest

from apps.vpn import leasing, messages
from apps.vpn.leasing import Held, NoExit, Place
from apps.vpn.messages import Lease, Over, Refusal, Status, Why
from nodes.client import Code, NodeError, StreamRefused, StreamReset, Unreachable

LEASE = Lease("10.66.0.2/32", "fd66::2/128", ["10.66.0.1"], 1500, 60.0)


class FakeStream:
    def __init__(self, reply: bytes) -> None:
        self.reply = reply
        self.came: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self.said = bytearray()
        self.ended = ""

    async def read(self) -> bytes:
        found = await self.came.get()
        if isinstance(found, Exception):
            raise found
        return found

    async def write(self, data: bytes) -> None:
        self.said += data

    async def reset(self) -> None:
        self.ended = "reset"

    async def aclose(self) -> None:
        self.ended = "closed"


class FakeNode:
    """Exits by name: what they answer with, and when."""

    def __init__(self, **exits: object) -> None:
        self.exits = exits
        self.asked: list[str] = []
        self.streams: dict[str, FakeStream] = {}
        self.go = {name: asyncio.Event() for name in exits}

    async def open_stream(
        self, target: str, port: int, greeting: bytes, timeout: float
    ) -> FakeStream:
        assert messages.read_request(greeting).version == messages.VERSION
        self.asked.append(target)
        answer = self.exits[target]
        if answer == "later":
            await self.go[target].wait()
            answer = LEASE
        if isinstance(answer, Exception):
            raise answer
        reply = answer if isinstance(answer, bytes) else messages.encode(answer)
        self.streams[target] = FakeStream(reply)
        return self.streams[target]


def places(*names: str) -> list[Place]:
    return [Place(name) for name in names]


async def test_the_first_of_those_named_is_taken_and_the_others_are_not_even_asked() -> None:
    node = FakeNode(a=LEASE, b=LEASE)
    held = await leasing.first(node, places("a", "b"), stagger=60)
    assert (held.place.node, held.lease, node.asked) == ("a", LEASE, ["a"])


async def test_one_that_says_no_makes_room_for_the_next_at_once() -> None:
    refused = StreamRefused(Why.FULL, messages.encode(Refusal("full")))
    node = FakeNode(a=refused, b=Unreachable("no route", Code.NO_ROUTE), c=b"\xc1", d=LEASE)
    held = await leasing.first(node, places("a", "b", "c", "d"), stagger=60)
    assert held.place.node == "d"
    assert node.streams["c"].ended == "reset"


async def test_when_all_say_no_each_reason_is_told() -> None:
    refused = StreamRefused(Why.NOT_ALLOWED, messages.encode(Refusal("not you")))
    node = FakeNode(a=refused, b=Unreachable("no route", Code.NO_ROUTE))
    with pytest.raises(NoExit) as told:
        await leasing.first(node, places("a", "b"), stagger=60)
    assert "a: not you" in str(told.value)
    assert "b: no route" in str(told.value)


async def test_without_any_exit_that_is_said() -> None:
    with pytest.raises(NoExit, match="no exit is known"):
        await leasing.first(FakeNode(), [], stagger=0)


def loaded(**loads: float) -> list[Place]:
    return [Place(name, load=load) for name, load in loads.items()]


async def racing(node: FakeNode, places: list[Place]) -> asyncio.Task[Held]:
    """Who is asked, and waits for `node.go`."""
    task = asyncio.create_task(leasing.fastest(node, places))
    while len(node.asked) < len(places):
        await asyncio.sleep(0)
    return task


async def test_the_fastest_of_all_is_taken_and_who_was_too_late_is_let_go() -> None:
    node = FakeNode(slow="later", quick="later", never="later")
    race = await racing(node, places("slow", "quick", "never"))
    node.go["quick"].set()
    held = await race
    assert held.place.node == "quick"
    assert node.streams["quick"].ended == ""
    assert "never" not in node.streams


async def test_two_that_answer_at_once_leave_one_lease() -> None:
    node = FakeNode(a="later", b="later")
    race = await racing(node, places("a", "b"))
    for go in node.go.values():
        go.set()
    held = await race
    other = {"a": "b", "b": "a"}[held.place.node]
    assert node.streams[held.place.node].ended == ""
    assert other not in node.streams or node.streams[other].ended == "closed"


async def test_one_that_is_full_is_not_taken_though_it_answers_first() -> None:
    """It is waited for the other, as long as that could still be better."""
    node = FakeNode(full="later", idle="later")
    race = await racing(node, loaded(full=1.0, idle=0.0))
    await asyncio.sleep(0.3)  # it answers after so long: the other has ten times that
    node.go["full"].set()
    while "full" not in node.streams:
        await asyncio.sleep(0)
    node.go["idle"].set()
    assert (await race).place.node == "idle"
    assert node.streams["full"].ended == "closed"


async def test_one_that_is_full_is_taken_where_the_other_does_not_answer_in_time() -> None:
    node = FakeNode(full="later", never="later")
    race = await racing(node, loaded(full=1.0, never=0.0))
    node.go["full"].set()
    assert (await race).place.node == "full"
    assert "never" not in node.streams


async def test_of_all_that_were_asked_at_once_each_reason_is_told() -> None:
    node = FakeNode(a=NodeError("no"), b=NodeError("way"))
    with pytest.raises(NoExit, match="no"):
        await leasing.fastest(node, places("a", "b"))
    with pytest.raises(NoExit, match="no exit is known"):
        await leasing.fastest(node, [])


async def attended(*came: bytes | Exception, lease: Lease = LEASE) -> tuple[str, list, FakeStream]:
    stream, heard = FakeStream(b""), []
    for each in came:
        stream.came.put_nowait(each)
    held = Held(Place("a"), lease, stream, 0.0)
    why = await leasing.attend(held, heard.append, asyncio.Event())
    return why, heard, stream


async def test_what_the_exit_says_is_heard_until_it_ends_the_lease() -> None:
    said = messages.frame(Status(3, 0.5)) + messages.frame(Over(Why.STOPPING, "going away"))
    why, heard, _ = await attended(said)
    assert heard == [Status(3, 0.5)]
    assert why == "the exit ended the lease: going away"


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (b"", "the exit ended the lease"),
        (StreamReset(Code.LINK_LOST), "the stream to the exit ended"),
        (b"\x00\x01\xc1", "the exit says what it may not"),
        (b"\xff\xff", "the exit says what it may not"),
    ],
)
async def test_every_end_of_the_stream_is_the_end_of_the_lease(end: object, told: str) -> None:
    why, heard, _ = await attended(end)
    assert why.startswith(told)
    assert heard == []


async def test_an_exit_that_is_silent_is_given_up() -> None:
    why, _, stream = await attended(
        lease=Lease("10.66.0.2/32", "fd66::2/128", ["10.66.0.1"], 1500, 1.0)
    )
    assert why == "nothing was heard of the exit for 1 s"
    assert messages.AtExit().feed(bytes(stream.said))


async def test_an_exit_without_a_session_is_given_up_unless_it_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leasing, "DOWN", 0.0)
    stream, down = FakeStream(b""), asyncio.Event()
    down.set()
    why = await leasing.attend(Held(Place("a"), LEASE, stream, 0.0), lambda _: None, down)
    assert why == "its node cannot be reached"


async def test_a_node_that_is_lost_ends_it_without_an_error() -> None:
    why, _, _ = await attended(NodeError("gone"))
    assert why == "the stream to the exit ended: gone"
