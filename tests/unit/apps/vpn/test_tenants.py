"""The clients of an exit: what is asked, given, refused and ended."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Self

from apps.vpn import messages, tenants
from apps.vpn.addresses import Plan
from apps.vpn.figures import Figures, Moved
from apps.vpn.leases import Book
from apps.vpn.messages import Alive, AtClient, Over, Request, Status, Why
from apps.vpn.namespace import CannotSetUp
from apps.vpn.options import parse
from apps.vpn.tenants import Tenants
from bus.identity import from_bytes
from nodes.client import Code, NodeError, StreamReset

KEYS = [from_bytes(bytes([number]) * 32) for number in range(1, 9)]
PLAN = Plan.of(from_bytes(bytes(32)))
HELLO = messages.encode(Request(messages.VERSION))


class Gate:
    """What is let in and out, in memory."""

    def __init__(self) -> None:
        self.plan = PLAN
        self.open: set[int] = set()
        self.found = Figures()
        self.broken = False

    async def admit(self, number: int) -> None:
        if self.broken:
            raise CannotSetUp("no nft here")
        self.open.add(number)

    async def dismiss(self, number: int) -> Moved:
        self.open.discard(number)
        return self.found.clients.pop(number, Moved())

    async def figures(self) -> Figures:
        return self.found


class Peers:
    def __init__(self) -> None:
        self.prefixes: dict[str, list[str]] = {}
        self.broken = False

    async def set_peer(self, target: str, prefixes: list[str]) -> None:
        if self.broken:
            raise NodeError("no such peer")
        self.prefixes[target] = list(prefixes)
        if not prefixes:
            del self.prefixes[target]


class Client:
    """A stream, seen from both ends: what `Tenants` takes for an Incoming and its Stream."""

    def __init__(self, key: str, greeting: bytes = HELLO) -> None:
        self.origin = key
        self.greeting = greeting
        self.lease: messages.Lease | None = None
        self.refused: tuple[int, str] | None = None
        self.answered = asyncio.Event()
        self.said: list[Status | Over] = []
        self.heard = asyncio.Event()
        self._reader = AtClient()
        self._incoming: asyncio.Queue[bytes | None] = asyncio.Queue()

    # The exit's side -----------------------------------------------------------------------------

    async def accept(self, reply: bytes) -> "Client":
        self.lease = messages.read_lease(reply)
        self.answered.set()
        return self

    async def refuse(self, code: int, reply: bytes) -> None:
        self.refused = code, messages.read_refusal(reply).reason
        self.answered.set()

    async def read(self, size: int = 65536) -> bytes:
        data = await self._incoming.get()
        if data is None:
            raise StreamReset(Code.LINK_LOST)
        return data

    async def write(self, data: bytes) -> None:
        self.said += self._reader.feed(data)
        self.heard.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    # The client's --------------------------------------------------------------------------------

    def say(self, data: bytes | None) -> None:
        """b"" ends the stream, None cuts it."""
        self._incoming.put_nowait(data)

    async def last_word(self) -> Over:
        async with asyncio.timeout(10):
            while not self.said or not isinstance(self.said[-1], Over):
                self.heard.clear()
                await self.heard.wait()
        return self.said[-1]


class Scene:
    """An exit with clients."""

    def __init__(self, tasks: asyncio.TaskGroup, silence: float, *options: str) -> None:
        parsed = parse(["--node", "beta", "--allow-key", "everybody", *options], "doc")
        assert parsed is not None
        self.gate, self.peers, self.book = Gate(), Peers(), Book(PLAN)
        self.tenants = Tenants(parsed, self.book, self.gate, self.peers, silence)
        self._tasks = tasks

    async def come(self, key: str, greeting: bytes = HELLO) -> Client:
        client = Client(key, greeting)
        self._tasks.create_task(self.tenants.serve(client))  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            await client.answered.wait()
        return client

    async def emptied(self) -> None:
        async with asyncio.timeout(10):
            for tenant in self.tenants:
                await tenant.gone.wait()
        assert not self.gate.open
        assert not self.peers.prefixes


@contextlib.asynccontextmanager
async def scene(*options: str, silence: float = tenants.LEASE) -> AsyncIterator[Scene]:
    async with asyncio.TaskGroup() as tasks:
        made = Scene(tasks, silence, *options)
        yield made
        for tenant in made.tenants:
            tenant.end(Why.STOPPING, "the test is over")


async def test_a_client_gets_its_addresses_and_may_send_from_nowhere_else() -> None:
    async with scene() as exit_:
        client = await exit_.come(KEYS[0])
        assert client.lease is not None
        assert exit_.peers.prefixes == {KEYS[0]: [client.lease.v4, client.lease.v6]}
        assert exit_.gate.open == {PLAN.wish(KEYS[0])}
        assert client.lease.resolver == [str(PLAN.gateway4), str(PLAN.gateway6)]
        client.say(b"")
        await exit_.emptied()


async def test_the_same_key_gets_the_same_addresses_again() -> None:
    async with scene() as exit_:
        first = await exit_.come(KEYS[0])
        first.say(None)
        await exit_.emptied()
        assert (await exit_.come(KEYS[0])).lease == first.lease


async def test_a_second_client_with_a_key_takes_the_place_of_the_first() -> None:
    async with scene() as exit_:
        clients = [await exit_.come(KEYS[0]) for _ in range(3)]
        assert [(await client.last_word()).code for client in clients[:2]] == [Why.REPLACED] * 2
        assert len(exit_.tenants) == 1
        assert exit_.gate.open == {PLAN.wish(KEYS[0])}


async def test_what_is_no_request_is_refused_with_the_reason() -> None:
    async with scene() as exit_:
        for greeting in (b"", b"\xc1", messages.encode(Request(2))):
            client = await exit_.come(KEYS[0], greeting)
            assert client.refused is not None
            assert client.refused[0] == Why.BAD_REQUEST
        assert not exit_.gate.open


async def test_when_it_is_full_others_are_refused_until_somebody_goes() -> None:
    async with scene("--clients", "2") as exit_:
        first, _ = await exit_.come(KEYS[0]), await exit_.come(KEYS[1])
        third = await exit_.come(KEYS[2])
        assert third.refused == (Why.FULL, "it has 2 clients, and takes no more")
        first.say(b"")
        tenant = next(tenant for tenant in exit_.tenants if tenant.key == KEYS[0])
        async with asyncio.timeout(10):
            await tenant.gone.wait()
        assert (await exit_.come(KEYS[2])).lease is not None


async def test_what_is_moved_counts_and_ends_the_lease_when_it_is_used_up() -> None:
    async with scene("--volume", "1k") as exit_:
        client = await exit_.come(KEYS[0])
        number = PLAN.wish(KEYS[0])
        exit_.gate.found.clients[number] = Moved(up=300, down=500)
        await exit_.tenants.measure()
        assert client.lease is not None
        exit_.gate.found.clients[number] = Moved(up=400, down=600, blocked={"mail": 2})
        await exit_.tenants.measure()
        assert (await client.last_word()).code == Why.VOLUME
        await exit_.emptied()
        again = await exit_.come(KEYS[0])
        assert again.refused is not None
        assert again.refused[0] == Why.VOLUME
        assert (await exit_.come(KEYS[1])).lease is not None


async def test_bytes_are_counted_once_also_those_of_the_last_moment() -> None:
    async with scene() as exit_:
        client = await exit_.come(KEYS[0])
        tenant = next(iter(exit_.tenants))
        exit_.gate.found.clients[tenant.number] = Moved(up=300)
        await exit_.tenants.measure()
        exit_.gate.found.clients[tenant.number] = Moved(up=350)
        client.say(b"")
        await exit_.emptied()
        assert exit_.book.volume(KEYS[0], tenant.since) == 350


async def test_a_client_is_told_what_was_blocked() -> None:
    async with scene() as exit_:
        client = await exit_.come(KEYS[0])
        tenant = next(iter(exit_.tenants))
        exit_.gate.found.clients[tenant.number] = Moved(blocked={"private": 7})
        await exit_.tenants.measure()
        status = exit_.tenants._status(tenant)
        assert status.blocked == {"private": 7}
        assert status.clients == 1
        client.say(b"")


async def test_garbage_on_the_stream_ends_the_lease() -> None:
    async with scene() as exit_:
        client = await exit_.come(KEYS[0])
        client.say(messages.frame(Alive()) + b"\xff\xff\xff")
        await exit_.emptied()


async def test_a_client_that_says_nothing_whole_is_silent() -> None:
    async with scene(silence=1.0) as exit_:
        client = await exit_.come(KEYS[0])
        feeding = asyncio.create_task(_drip(client))
        await exit_.emptied()
        feeding.cancel()


async def _drip(client: Client) -> None:
    """Bytes of a message that never ends."""
    client.say(b"\x10\x00")
    while True:
        client.say(b"\x80")
        await asyncio.sleep(0.05)


async def test_a_client_that_cannot_be_let_in_is_told_and_leaves_nothing() -> None:
    async with scene() as exit_:
        exit_.gate.broken = True
        client = await exit_.come(KEYS[0])
        assert client.refused is not None
        assert client.refused[0] == Why.FAILED
        assert len(exit_.tenants) == 0
        exit_.gate.broken, exit_.peers.broken = False, True
        assert (await exit_.come(KEYS[0])).refused
        assert not exit_.gate.open
        exit_.peers.broken = False
        assert (await exit_.come(KEYS[0])).lease


async def test_when_the_exit_goes_away_it_says_so_to_all() -> None:
    async with scene() as exit_:
        clients = [await exit_.come(key) for key in KEYS[:3]]
        await exit_.tenants.close()
        assert [(await client.last_word()).code for client in clients] == [Why.STOPPING] * 3
        assert exit_.book.leased == 0
