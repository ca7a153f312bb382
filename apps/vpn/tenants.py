"""The clients of an exit: one for a key, from the request to the end of its lease."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

from apps.vpn import messages, stats
from apps.vpn.figures import Figures, Moved
from apps.vpn.leases import Book, NoRoom
from apps.vpn.messages import EVERY, BadMessage, Lease, Over, Refusal, Status, Why
from apps.vpn.namespace import CannotSetUp
from nodes.client import NodeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apps.vpn.addresses import Plan
    from apps.vpn.options import Options
    from nodes.client import Incoming, PeerStats, Stream, TunnelStats

log = logging.getLogger("vpn")

LEASE: Final = 20.0  # seconds of silence that end a lease
FAREWELL: Final = 1.0  # seconds for the last word
MAX_PENDING: Final = 64  # requests beside those that have a lease


class Gate(Protocol):
    """What is opened for a client: `apps.vpn.exit.Exit`."""

    plan: Plan

    async def admit(self, number: int) -> None: ...

    async def dismiss(self, number: int) -> Moved: ...

    async def figures(self) -> Figures: ...


class Peers(Protocol):
    """The tunnel of the node: `nodes.client.Tunnel`."""

    async def set_peer(self, target: str, prefixes: Sequence[str]) -> None: ...


class Tenant:
    """A client that has a lease, or is about to."""

    def __init__(self, key: str, number: int) -> None:
        self.key = key
        self.number = number
        self.since = time.time()
        self.moved = Moved()
        self.rates = (0.0, 0.0)  # bytes/s up and down, over the last seconds
        self.gone = asyncio.Event()  # nothing is left of it
        self._over: asyncio.Future[Over] = asyncio.get_running_loop().create_future()

    def end(self, why: Why, reason: str) -> None:
        """Tell it that the lease is over, and end it."""
        if not self._over.done():
            self._over.set_result(Over(why, reason))

    async def over(self) -> Over:
        return await asyncio.shield(self._over)


class Tenants:
    """All of them, while one node is connected."""

    def __init__(
        self, options: Options, book: Book, gate: Gate, peers: Peers, silence: float = LEASE
    ) -> None:
        self._options = options
        self._book = book
        self._gate = gate
        self._peers = peers
        self._silence = silence  # seconds
        self._tenants: dict[str, Tenant] = {}
        self._pending = 0
        self._closing = False
        self.connections = 0  # that are tracked, of all clients
        self.foreign = 0  # packets whose source is nobody's
        self._read_at = time.monotonic()

    def __iter__(self) -> Iterator[Tenant]:
        return iter([*self._tenants.values()])

    def __len__(self) -> int:
        return len(self._tenants)

    @property
    def load(self) -> float:
        """How full it is: 0 to 1."""
        return min(1.0, len(self._tenants) / self._options.clients)

    async def serve(self, incoming: Incoming) -> None:
        """One stream, from its request to the end of the lease."""
        if self._pending >= MAX_PENDING:
            await _refuse(incoming, Why.FULL, "too many requests at once")
            return
        self._pending += 1
        try:
            tenant = await self._admit(incoming)
        finally:
            self._pending -= 1
        if tenant is None:
            return
        try:
            await self._hold(tenant, incoming)
        except NodeError as error:
            log.info("client %s: %s", tenant.key, error)
        finally:
            await self._dismiss(tenant)

    async def measure(self) -> None:
        """Read what was moved; ends leases whose volume is used up. Raises CannotSetUp."""
        figures = await self._gate.figures()
        now = time.monotonic()
        passed, self._read_at = max(now - self._read_at, 0.001), now
        self.foreign = figures.foreign
        for tenant in self:
            self._count(tenant, figures.of(tenant.number), passed)

    def _count(self, tenant: Tenant, moved: Moved, passed: float) -> None:
        before, tenant.moved = tenant.moved, moved
        up, down = moved.up - before.up, moved.down - before.down
        tenant.rates = max(0.0, up / passed), max(0.0, down / passed)
        self._book.count(tenant.key, max(0, up + down), time.time())
        limit = self._options.volume
        if limit and self._book.volume(tenant.key, time.time()) >= limit:
            tenant.end(Why.VOLUME, _used_up(limit))

    def told(self, told: TunnelStats | None) -> list[stats.Client]:
        """All of them, with what the node says of the way to each."""
        peers = {peer.key: peer for peer in told.peers} if told else {}
        return [self._told(tenant, peers.get(tenant.key)) for tenant in self]

    def _told(self, tenant: Tenant, peer: PeerStats | None) -> stats.Client:
        return stats.Client(
            key=tenant.key,
            v4=str(self._gate.plan.address4(tenant.number)),
            v6=str(self._gate.plan.address6(tenant.number)),
            since=tenant.since,
            up=tenant.moved.up,
            down=tenant.moved.down,
            rate_up=tenant.rates[0],
            rate_down=tenant.rates[1],
            volume=self._book.volume(tenant.key, time.time()),
            blocked=dict(tenant.moved.blocked),
            dropped=dict(peer.dropped) if peer else {},
            round_trip=peer.round_trip if peer else None,
        )

    async def close(self) -> None:
        """Tell all that the exit goes away. What was set up for them is taken away with the rest."""
        self._closing = True
        with contextlib.suppress(CannotSetUp):
            await self.measure()
        waiting = [tenant.gone.wait() for tenant in self]
        for tenant in self:
            tenant.end(Why.STOPPING, "the exit goes away")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await asyncio.gather(*waiting)

    async def _admit(self, incoming: Incoming) -> Tenant | None:
        """Who asks, and may it? None: it was refused."""
        key = incoming.origin
        try:
            messages.read_request(incoming.greeting)
        except BadMessage as error:
            await _refuse(incoming, Why.BAD_REQUEST, str(error)[:200])
            return None
        limit = self._options.volume
        if limit and self._book.volume(key, time.time()) >= limit:
            await _refuse(incoming, Why.VOLUME, _used_up(limit))
            return None
        while old := self._tenants.get(key):
            old.end(Why.REPLACED, "another client with this key has taken its place")
            await old.gone.wait()
        if len(self._tenants) >= self._options.clients:
            await _refuse(
                incoming, Why.FULL, f"it has {self._options.clients} clients, and takes no more"
            )
            return None
        try:
            number = self._book.take(key, time.time())
        except NoRoom:
            await _refuse(incoming, Why.FULL, "it has no address left")
            return None
        tenant = self._tenants[key] = Tenant(key, number)
        return tenant

    async def _hold(self, tenant: Tenant, incoming: Incoming) -> None:
        """Let it in, and stay until the lease is over. Raises NodeError."""
        lease = self._lease(tenant.number)
        try:
            await self._gate.admit(tenant.number)
            await self._peers.set_peer(tenant.key, [lease.v4, lease.v6])
        except (CannotSetUp, NodeError) as error:
            log.warning("client %s cannot be let in: %s", tenant.key, error)
            await _refuse(incoming, Why.FAILED, "it cannot let this client in; its log says why")
            return
        log.info("client %s has %s", tenant.key, lease.v4)
        async with await incoming.accept(messages.encode(lease)) as stream:
            why = await self._until_over(tenant, stream)
        log.info("client %s is gone: %s", tenant.key, why)

    async def _until_over(self, tenant: Tenant, stream: Stream) -> str:
        """Exchange signs of life; gives why that ended."""
        listening = asyncio.create_task(_listen(stream, self._silence))
        speaking = asyncio.create_task(self._speak(tenant, stream))
        ending = asyncio.create_task(tenant.over())
        tasks = {listening, speaking, ending}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                return next(task.result() for task in (listening, speaking) if task.done())
            over = ending.result()
            speaking.cancel()
            with contextlib.suppress(NodeError, TimeoutError):
                async with asyncio.timeout(FAREWELL):
                    await stream.write(messages.frame(over))
            return over.reason
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _speak(self, tenant: Tenant, stream: Stream) -> str:
        try:
            while True:
                async with asyncio.timeout(self._silence):
                    await stream.write(messages.frame(self._status(tenant)))
                await asyncio.sleep(EVERY)
        except TimeoutError:
            return f"it took nothing for {self._silence:g} s"
        except NodeError as error:
            return str(error)

    def _status(self, tenant: Tenant) -> Status:
        volume = self._book.volume(tenant.key, time.time())
        blocked = dict(tenant.moved.blocked)
        return Status(len(self._tenants), self.load, self.connections, volume, blocked)

    def _lease(self, number: int) -> Lease:
        plan = self._gate.plan
        return Lease(
            f"{plan.address4(number)}/32", f"{plan.address6(number)}/128",
            [str(plan.gateway4), str(plan.gateway6)], self._options.mtu, self._silence, self._options.limits,
        )  # fmt: skip

    async def _dismiss(self, tenant: Tenant) -> None:
        """Nothing of it is left, whatever fails."""
        try:
            if not self._closing:
                with contextlib.suppress(NodeError):
                    await self._peers.set_peer(tenant.key, [])
                with contextlib.suppress(CannotSetUp):
                    self._count(tenant, await self._gate.dismiss(tenant.number), 1.0)
        finally:
            self._book.give_back(tenant.key, time.time())
            del self._tenants[tenant.key]
            tenant.gone.set()


async def _listen(stream: Stream, silence: float) -> str:
    """Until it is silent, ends the stream, or says what may not be; gives which."""
    reader = messages.AtExit()
    try:
        while True:
            async with asyncio.timeout(silence):
                while True:
                    data = await stream.read()
                    if not data:
                        return "it ended the stream"
                    if reader.feed(data):
                        break  # a whole message: it is alive
    except TimeoutError:
        return f"nothing was heard for {silence:g} s"
    except (BadMessage, NodeError) as error:
        return str(error)


async def _refuse(incoming: Incoming, why: Why, reason: str) -> None:
    log.info("refused %s: %s", incoming.origin, reason)
    with contextlib.suppress(NodeError):  # gone: nobody is left to tell
        await incoming.refuse(why, messages.encode(Refusal(reason)))


def _used_up(limit: int) -> str:
    return f"the {limit} bytes of today are used up; the day begins at 0:00 UTC"
