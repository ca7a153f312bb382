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
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

import dns.asyncquery
import dns.exception
import dns.rcode

from apps.vpn import questions
from apps.vpn.dnscache import Cache
from apps.vpn.questions import MAX_TCP, Asked, NotAnswered, Question, Terms

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    import dns.message

    from apps.vpn.inside import Doors

log = logging.getLogger("vpn")

RESOLV_CONF: Final = Path("/etc/resolv.conf")
MAX_WAITING: Final = 512  # questions that are being asked, of all clients
MAX_OF_CLIENT: Final = 64
MAX_CONNECTIONS: Final = 128
MAX_CONNECTIONS_OF_CLIENT: Final = 8
PATIENCE: Final = 2.0  # seconds for one server
ROUNDS: Final = 2  # times that all servers are asked
IDLE: Final = 10.0  # seconds that a TCP connection may be without a question (RFC 7766, 6.2.3)
MAX_SERVERS: Final = 3  # as in resolv.conf(5)
REREAD: Final = 5.0  # seconds between two looks at resolv.conf


class Resolver:
    """Questions in, answers out. `servers`, as (address, port), instead of those of this machine."""

    def __init__(
        self, terms: Terms, servers: Sequence[tuple[str, int]] = (), conf: Path = RESOLV_CONF
    ) -> None:
        self._terms = terms
        self._given = tuple(servers)
        self._conf = conf
        self._read: tuple[float, tuple[tuple[str, int], ...]] | None = None
        self._cache = Cache()
        self._asking: dict[Question, asyncio.Future[dns.message.Message | None]] = {}
        self._waiting: Counter[str] = Counter()  # by the address of a client
        self._connections: Counter[str] = Counter()
        self.figures: Counter[str] = Counter()  # questions, cached, failed, dropped

    async def serve(self, doors: Doors) -> None:
        """Answer until it is cancelled; closes the doors."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            stack.callback(doors.close)
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
        return asked, questions.answer(asked, *known, room or asked.room, self._terms)

    async def slowly(self, asked: Asked, client: str, room: int | None = None) -> bytes | None:
        """Ask; None when there are too many questions already."""
        question = asked.question
        full = self._waiting.total() >= MAX_WAITING or self._waiting[client] >= MAX_OF_CLIENT
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
        if found is None:
            self.figures["failed"] += 1
            return questions.refused(asked, dns.rcode.SERVFAIL)
        try:
            return questions.answer(asked, found, 0.0, room or asked.room, self._terms)
        except (
            dns.exception.DNSException,
            ValueError,
        ) as error:  # of a server that is out of its mind
            log.warning("an answer about %s cannot be passed on: %s", question.name, error)
            return questions.refused(asked, dns.rcode.SERVFAIL)

    async def _shared(self, question: Question) -> dns.message.Message | None:
        """Ask once, however many wait for it."""
        if question in self._asking:
            return await asyncio.shield(self._asking[question])
        future = asyncio.get_running_loop().create_future()
        self._asking[question] = future
        found: dns.message.Message | None = None
        try:
            found = await self._ask(question)
            return found
        finally:
            del self._asking[question]
            future.set_result(found)

    async def _ask(self, question: Question) -> dns.message.Message | None:
        for _ in range(ROUNDS):
            for address, port in self._servers():
                try:
                    found, _ = await dns.asyncquery.udp_with_fallback(
                        question.query(), address, timeout=PATIENCE, port=port,
                        ignore_unexpected=True, ignore_errors=True, ignore_trailing=True,
                    )  # fmt: skip
                except (dns.exception.DNSException, OSError, ValueError, EOFError) as error:
                    log.debug("%s: %s", address, error)
                    continue
                if found.rcode() not in {dns.rcode.SERVFAIL, dns.rcode.REFUSED}:
                    self._cache.put(question, found, time.monotonic())
                    return found
        return None

    def _servers(self) -> Sequence[tuple[str, int]]:
        if self._given:
            return self._given
        now = time.monotonic()
        if self._read is None or now - self._read[0] > REREAD:
            self._read = now, tuple(_nameservers(self._conf))
        found = list(self._read[1])
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


def _nameservers(conf: Path) -> list[tuple[str, int]]:
    """The servers that resolv.conf names; the machine itself if it names none (resolv.conf(5))."""
    found = []
    try:
        for line in conf.read_text(errors="replace").splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                with contextlib.suppress(ValueError):
                    found.append((str(ip_address(words[1])), questions.PORT))
    except OSError:
        pass
    return found[:MAX_SERVERS] or [("127.0.0.1", questions.PORT)]
