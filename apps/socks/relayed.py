"""One association of datagrams at the exit: its sockets, and what may go and come through them."""

import asyncio
import contextlib
import errno
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from apps.egress.hostnames import Address
from apps.egress.ledger import Account
from apps.socks.dial import DialError, Gate
from apps.socks.packets import Packet
from apps.socks.protocol import Reply
from apps.socks.remotes import Remotes
from apps.socks.upkeep import receive_from

LARGEST: Final = 65_535
JUDGED_FOR: Final = 10.0  # seconds that a decision about a place is good for
MAX_JUDGED: Final = 512  # decisions that are remembered
MAX_NAMES: Final = 8  # names that are being resolved at once
MAX_HELD: Final = 16  # datagrams that wait for one name

Back = Callable[[Packet], Awaitable[None]]
Place = tuple[str, int]


class Stopped(Exception):
    """A datagram is not sent; the text is one word for statistics."""


class Relayed:
    """The sockets of one association and what is remembered of where it sends.

    `back` takes what came from a target. Everything that is not passed on is counted in `dropped`.
    """

    def __init__(self, number: int, gate: Gate, account: Account, back: Back) -> None:
        self._number = number
        self._gate = gate
        self._account = account
        self._back = back
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self.last = now  # loop time of the last datagram either way
        self.dropped: Counter[str] = Counter()
        self._remotes = Remotes()
        self._sockets: dict[int, socket.socket] = {}  # by IP version
        self._tasks: set[asyncio.Task[None]] = set()
        self._judged: dict[Place, tuple[Address | None, float]] = {}  # None: denied
        self._held: dict[Place, list[bytes]] = {}  # for names that are being resolved

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        self._held.clear()

    def send(self, packet: Packet) -> None:
        """Send a datagram of the near side, or drop it."""
        self.last = now = self._loop.time()
        place = packet.host, packet.port
        try:
            if place in self._held:
                self._hold(place, packet.data)
                return
            kept = self._judged.get(place)
            if kept is None or kept[1] <= now:
                self._judge(packet, now)
            else:
                self._send(kept[0], packet.port, packet.data, now)
        except Stopped as reason:
            self.dropped[str(reason)] += 1

    def _judge(self, packet: Packet, now: float) -> None:
        """Decide about an address at once, about a name when it is resolved."""
        if not packet.port:
            raise Stopped("no_port")
        try:
            place = self._gate.place(packet.host, packet.port)
        except DialError as error:
            raise Stopped(
                "denied" if error.refusal.code is Reply.NOT_ALLOWED else "no_name"
            ) from None
        if not isinstance(place, str):
            address = self._permitted((place,), packet.port, None)
            self._remember((packet.host, packet.port), address, now)
            self._send(address, packet.port, packet.data, now)
            return
        known = self._gate.resolver.known(place)
        if known is not None:
            if not known:
                raise Stopped("no_name")
            self._send(self._permitted(known, packet.port, place), packet.port, packet.data, now)
            return
        if len(self._held) >= MAX_NAMES:
            raise Stopped("names")
        self._held[packet.host, packet.port] = [packet.data]
        self._begin(self._resolve(packet.host, packet.port, place))

    async def _resolve(self, host: str, port: int, name: str) -> None:
        resolver = self._gate.resolver
        found = await resolver.ask(name, "A")
        if not found.addresses:
            found = await resolver.ask(name, "AAAA")
        held = self._held.pop((host, port), [])
        now = self._loop.time()
        address = self._permitted(found.addresses, port, name)
        self._remember((host, port), address, now)
        for data in held:
            try:
                self._send(address, port, data, now)
            except Stopped as reason:
                self.dropped[str(reason) if found.addresses else "no_name"] += 1

    def _permitted(self, found: tuple[Address, ...], port: int, name: str | None) -> Address | None:
        permitted, _ = self._gate.permitted(found, port, name)
        return permitted[0] if permitted else None

    def _remember(self, place: Place, address: Address | None, now: float) -> None:
        self._judged.pop(place, None)
        while len(self._judged) >= MAX_JUDGED:
            del self._judged[next(iter(self._judged))]
        self._judged[place] = (address, now + JUDGED_FOR)

    def _hold(self, place: Place, data: bytes) -> None:
        if len(self._held[place]) >= MAX_HELD:
            raise Stopped("names")
        self._held[place].append(data)

    def _send(self, address: Address | None, port: int, data: bytes, now: float) -> None:
        if address is None:
            raise Stopped("denied")
        if self._account.exhausted(now):
            raise Stopped("volume")
        if not self._account.outward.take(len(data), now):
            raise Stopped("rate")
        sock = self._socket(address.version)
        place = str(address), port
        # Before it goes: the answer may be quicker than we.
        self._remotes.sent(place, now)
        try:
            sock.sendto(data, place)
        except BlockingIOError:
            raise Stopped("no_room") from None
        except OSError as error:
            raise Stopped("too_large" if error.errno == errno.EMSGSIZE else "no_way") from None
        self._account.spend(0, len(data), now)

    def _socket(self, version: int) -> socket.socket:
        sock = self._sockets.get(version)
        if sock is None:
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            try:
                sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                sock.settimeout(0)
                if version == 6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(("::" if version == 6 else "0.0.0.0", 0))  # noqa: S104 - answers come from anywhere
            except OSError:
                if sock is not None:
                    sock.close()
                raise Stopped("no_socket") from None
            self._sockets[version] = sock
            self._begin(self._receive(sock))
        return sock

    async def _receive(self, sock: socket.socket) -> None:
        """Pass on what comes from where something was sent to."""
        while True:
            try:
                data, source = await receive_from(sock, LARGEST)
            except OSError:  # an ICMP error of a datagram sent before
                await asyncio.sleep(0)
                continue
            why = self._turned_back(source[:2], len(data))
            if why is None:
                await self._back(Packet(self._number, source[0].partition("%")[0], source[1], data))
            else:
                self.dropped[why] += 1
            await asyncio.sleep(0)  # a flood leaves nobody else waiting

    def _turned_back(self, source: Place, size: int) -> str | None:
        """Say why it is not passed on; None when it is, and then it is counted."""
        now = self._loop.time()
        if not self._remotes.may_return(source, size, now):
            return "unasked"
        if self._account.exhausted(now):
            return "volume"
        if not self._account.inward.take(size, now):
            return "rate"
        self.last = now
        self._account.spend(size, 0, now)
        return None

    def _begin(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
