"""The exit's resolver: answers on its tunnel addresses, asks the machine's servers, keeps what they say.

Its doors are in the exit's namespace, its questions go out as those of the machine do. What it holds for
clients is bounded, in all and for each: too many questions are not answered, and are asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import dns.exception
import dns.flags
import dns.rcode

from apps.egress import hostnames, replies, upstream
from apps.egress.dnscache import FAILURE, Cache
from apps.egress.replies import Unusable
from apps.egress.watched import RESOLV_CONF, Watched
from apps.vpn import questions
from apps.vpn.questions import MAX_TCP, Asked, NotAnswered, Question, Terms

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import dns.message

    from apps.egress.upstream import Server
    from apps.vpn.inside import Doors

log = logging.getLogger("vpn")

MAX_WAITING: Final = 512  # questions that are being asked, of all clients
MAX_OF_CLIENT: Final = 64
MAX_CONNECTIONS: Final = 128
MAX_CONNECTIONS_OF_CLIENT: Final = 8
PATIENCE: Final = 2.0  # seconds for one server
ROUNDS: Final = 2  # times that all servers are asked
IDLE: Final = 10.0  # seconds that a TCP connection may be without a question (RFC 7766, 6.2.3)


class Resolver:
    """Questions in, answers out. `servers`, as (address, port), instead of those of this machine."""

    def __init__(
        self, terms: Terms, servers: Sequence[Server] = (), conf: Path = RESOLV_CONF
    ) -> None:
        self._terms = terms
        self._given = tuple(servers)
        self._conf = Watched(conf, hostnames.read_servers)
        self._cache: Cache[Question, dns.message.QueryMessage | None] = Cache()  # None: it failed
        self._asking: dict[Question, asyncio.Task[dns.message.QueryMessage | None]] = {}
        self._waiting: Counter[str] = Counter()  # by the address of a client
        self._connections: Counter[str] = Counter()
        self.figures: Counter[str] = Counter()  # questions, cached, failed, dropped

    async def serve(self, doors: Doors) -> None:
        """Answer until it is cancelled; closes the doors."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            stack.callback(doors.close)
            stack.callback(self._give_up)
            async with asyncio.TaskGroup() as tasks:
                for udp in doors.udp:
                    transport, _ = await loop.create_datagram_endpoint(
                        lambda: _Datagrams(self, tasks), sock=udp
                    )
                    stack.callback(transport.close)
                for tcp in doors.tcp:
                    tasks.create_task(self._accept(tcp, tasks))

    def quickly(self, wire: bytes, room: int | None = None) -> tuple[Asked, bytes | None]:
        """What can be said at once, or None: it is to be asked. Raises NotAnswered."""
        asked = questions.read(wire, self._terms)
        self.figures["questions"] += 1
        if asked.question is None:
            return asked, questions.refused(asked)
        known = self._cache.get(asked.question, time.monotonic())
        if known is None:
            return asked, None
        self.figures["cached"] += 1
        return asked, self._said(asked, *known, room)

    async def slowly(self, asked: Asked, client: str, room: int | None = None) -> bytes | None:
        """Ask; None when there are too many questions already."""
        question = asked.question
        waiting = max(self._waiting.total(), len(self._asking))  # some may wait no more
        full = waiting >= MAX_WAITING or self._waiting[client] >= MAX_OF_CLIENT
        if question is None or full:
            self.figures["dropped"] += 1
            return None
        self._waiting[client] += 1
        try:
            found = await self._shared(question)
        finally:
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]
        return self._said(asked, found, 0.0, room)

    def _said(
        self, asked: Asked, found: dns.message.QueryMessage | None, age: float, room: int | None
    ) -> bytes:
        if found is None:
            self.figures["failed"] += 1
            return questions.refused(asked, dns.rcode.SERVFAIL)
        try:
            return questions.answer(asked, found, age, room or asked.room, self._terms)
        except (
            dns.exception.DNSException,
            ValueError,
        ) as error:  # of a server that is out of its mind
            log.warning("an answer about %s cannot be passed on: %s", found.question, error)
            return questions.refused(asked, dns.rcode.SERVFAIL)

    async def _shared(self, question: Question) -> dns.message.QueryMessage | None:
        """Ask once, however many wait for it; it is nobody's own, so who gives up ends it for nobody."""
        task = self._asking.get(question)
        if task is None:
            task = self._asking[question] = asyncio.create_task(self._ask(question))
            task.add_done_callback(lambda _: self._asking.pop(question, None))
        return await asyncio.shield(task)

    def _give_up(self) -> None:
        for task in self._asking.values():
            task.cancel()

    async def _ask(self, question: Question) -> dns.message.QueryMessage | None:
        for _ in range(ROUNDS):
            for server in self._servers():
                try:
                    async with asyncio.timeout(PATIENCE):
                        found = await _ask_server(server, question.query())
                except (Unusable, OSError) as error:  # a time-out is one, too
                    log.debug("%s: %s", server[0], error)
                    continue
                if found.rcode() not in {dns.rcode.SERVFAIL, dns.rcode.REFUSED}:
                    seconds = questions.lifetime(found)
                    self._cache.put(question, found, seconds, time.monotonic())
                    return found
        self._cache.put(question, None, FAILURE, time.monotonic())
        return None

    def _servers(self) -> Sequence[Server]:
        if self._given:
            return self._given
        found = [(host, questions.PORT) for host in self._conf.value()]
        random.shuffle(found)
        return found

    async def _accept(self, listener: socket.socket, tasks: asyncio.TaskGroup) -> None:
        def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.create_task(self._welcome(reader, writer))

        server = await asyncio.start_server(arrived, sock=listener, limit=2 * MAX_TCP)
        async with server:
            await server.serve_forever()

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = str(writer.get_extra_info("peername", ("",))[0])
        self._connections[client] += 1
        try:
            few = self._connections[client] <= MAX_CONNECTIONS_OF_CLIENT
            if few and self._connections.total() <= MAX_CONNECTIONS:
                await self._converse(reader, writer, client)
        except (OSError, TimeoutError, EOFError, NotAnswered):
            pass  # gone, silent, or not speaking DNS
        finally:
            self._connections[client] -= 1
            if not self._connections[client]:
                del self._connections[client]
            writer.close()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: str
    ) -> None:
        while True:
            async with asyncio.timeout(IDLE):
                size = int.from_bytes(await reader.readexactly(2))
                wire = await reader.readexactly(size)
            asked, said = self.quickly(wire, MAX_TCP)
            if said is None:
                said = await self.slowly(asked, client, MAX_TCP)
            if said is None:
                return
            writer.write(len(said).to_bytes(2) + said)
            async with asyncio.timeout(IDLE):
                await writer.drain()


class _Datagrams(asyncio.DatagramProtocol):
    """A UDP door."""

    def __init__(self, resolver: Resolver, tasks: asyncio.TaskGroup) -> None:
        self._resolver = resolver
        self._tasks = tasks
        self._send: Callable[[bytes, tuple[str, int]], None] = lambda _data, _to: None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._send = transport.sendto

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            asked, said = self._resolver.quickly(data)
        except NotAnswered:
            return
        if said is None:
            self._tasks.create_task(self._answer(asked, addr))
        else:
            self._send(said, addr)

    async def _answer(self, asked: Asked, addr: tuple[str, int]) -> None:
        said = await self._resolver.slowly(asked, addr[0])
        if said is not None:
            self._send(said, addr)


async def _ask_server(server: Server, query: dns.message.QueryMessage) -> dns.message.QueryMessage:
    wire = query.to_wire()

    def read(data: bytes) -> dns.message.QueryMessage | None:
        return replies.read(data, query)

    found = await upstream.over_udp(server, wire, read)
    if found.flags & dns.flags.TC:
        found = await upstream.over_tcp(server, wire, read)
    if found.flags & dns.flags.TC:
        raise Unusable("truncated over TCP")
    return found
