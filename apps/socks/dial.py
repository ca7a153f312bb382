"""Dialling at the exit: resolve, check every address found, connect to one that was checked.

Names are resolved here and nowhere else, and what is connected is the address that the policy saw:
a second lookup, which could answer something else, never happens. Both families are asked for at once and
raced as RFC 8305 (happy eyeballs) says.
"""

import asyncio
import errno
import socket
import time
from typing import Final

import psutil

from apps.egress.hostnames import Address, NotAName, address_of, read_host
from apps.egress.rules import Policy
from apps.socks.answers import Family, Outcome
from apps.socks.messages import Destination, Refusal
from apps.socks.protocol import Reply
from apps.socks.resolver import Resolver
from apps.socks.upkeep import connected

# RFC 8305 section 8. STAGGER: before the next address is tried beside one that does not answer.
STAGGER: Final = 0.25  # seconds
# How long IPv4 addresses that came first wait for those of IPv6.
RESOLUTION_DELAY: Final = 0.05  # seconds
# A name with hundreds of addresses is no reason to dial hundreds.
MAX_ADDRESSES: Final = 8

OWN_EVERY: Final = 1.0  # seconds between two looks at the addresses of this machine

_REPLIES = {
    errno.ECONNREFUSED: Reply.REFUSED,
    errno.ENETUNREACH: Reply.NETWORK_UNREACHABLE,
    errno.EADDRNOTAVAIL: Reply.NETWORK_UNREACHABLE,  # no source address of that family
    errno.EAFNOSUPPORT: Reply.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Reply.HOST_UNREACHABLE,
    errno.EHOSTDOWN: Reply.HOST_UNREACHABLE,
    errno.ETIMEDOUT: Reply.TIMED_OUT,
    errno.EACCES: Reply.NOT_ALLOWED,  # the exit's own firewall
    errno.EPERM: Reply.NOT_ALLOWED,
}


class DialError(Exception):
    """The target was not reached; `refusal` says why."""

    def __init__(self, code: Reply, reason: str) -> None:
        super().__init__(reason)
        self.refusal = Refusal(code, reason)


class Gate:
    """What may be reached from here: the policy, the resolver, and which addresses are our own."""

    def __init__(self, policy: Policy, resolver: Resolver) -> None:
        self.policy = policy
        self.resolver = resolver
        self._own: set[Address] = set()
        self._looked = 0.0  # monotonic seconds; 0: never

    def own(self) -> set[Address]:
        """The addresses of this machine."""
        now = time.monotonic()
        if not self._looked or now - self._looked >= OWN_EVERY:
            self._looked, self._own = now, _own_addresses()
        return self._own

    def permitted(
        self, found: tuple[Address, ...], port: int, name: str | None
    ) -> tuple[list[Address], str | None]:
        """Those that may be reached, and why the first of the others may not."""
        refusals = {
            address: self.policy.refusal(address, port, self.own(), name) for address in found
        }
        why = next((text for text in refusals.values() if text is not None), None)
        return [address for address, text in refusals.items() if text is None], why

    def place(self, host: str, port: int) -> Address | str:
        """The address or name that is meant; raises DialError for one that is none, or denied."""
        try:
            place = read_host(host)
        except NotAName as error:
            raise DialError(Reply.HOST_UNREACHABLE, f"{host[:80]}: {error}") from None
        why = self.policy.refusal_of_name(place if isinstance(place, str) else None, port)
        if why is not None:
            raise DialError(Reply.NOT_ALLOWED, why)
        return place


async def dial(destination: Destination, gate: Gate, seconds: float) -> socket.socket:
    """Give a connected, non-blocking socket; raise DialError."""
    host, port = destination.host, destination.port
    place = gate.place(host, port)
    race = _Race(gate, place, port)
    try:
        async with asyncio.timeout(seconds):
            return await race.run()
    except TimeoutError:
        raise DialError(Reply.TIMED_OUT, f"{host}:{port}: no answer in {seconds:g} s") from None
    except OSError as error:
        code = _REPLIES.get(error.errno or 0, Reply.GENERAL)
        raise DialError(code, f"{host}:{port}: {error.strerror or error}") from None


class _Race:
    """The addresses of one target, each tried a little after the last, to the first that answers."""

    def __init__(self, gate: Gate, place: Address | str, port: int) -> None:
        self._gate = gate
        self._port = port
        self._name = place if isinstance(place, str) else None
        self._place = place
        self._waiting: list[Address] = []
        self._tried = 0
        self._due = 0.0  # loop time of the next attempt, while others run
        self._last: Address | None = (
            None  # tried last: the next is of the other family, if there is one
        )
        self._attempts: set[asyncio.Task[socket.socket]] = set()
        self._lookups: dict[asyncio.Task[Outcome], Family] = {}
        self._forbidden: str | None = None
        self._unresolved: Outcome | None = None
        self._failed: OSError | None = None  # the first: of the address that was preferred

    async def run(self) -> socket.socket:
        """Raises DialError or OSError."""
        try:
            await self._look_up()
            if len(self._waiting) == 1 and not self._lookups:
                return await _connect(self._waiting[0], self._port)  # no race, and no task for it
            while True:
                self._begin()
                if not self._attempts and not self._lookups:
                    raise self._problem()
                won = await self._step()
                if won is not None:
                    return won
        finally:
            await self._clear()

    async def _look_up(self) -> None:
        """Give what is known at once, or ask for both families and wait for what to begin with."""
        if self._name is None:
            self._found((self._place,) if not isinstance(self._place, str) else ())
            return
        known = self._gate.resolver.known(self._name)
        if known is not None:
            if not known:
                self._unresolved = Outcome((), "no such name")
            self._found(known)
            return
        resolver = self._gate.resolver
        families: tuple[Family, ...] = ("AAAA", "A")
        self._lookups = {
            asyncio.create_task(resolver.ask(self._name, family)): family for family in families
        }
        await asyncio.wait(self._lookups, return_when=asyncio.FIRST_COMPLETED)
        self._take_lookups()
        if self._waiting and self._waiting[0].version == 4 and self._lookups:
            await asyncio.wait(self._lookups, timeout=RESOLUTION_DELAY)
            self._take_lookups()

    def _take_lookups(self) -> None:
        for task in [task for task in self._lookups if task.done()]:
            del self._lookups[task]
            outcome = task.result()
            if outcome.addresses:
                self._found(outcome.addresses)
            elif self._unresolved is None or outcome.silent:
                self._unresolved = outcome

    def _found(self, addresses: tuple[Address, ...]) -> None:
        permitted, why = self._gate.permitted(addresses, self._port, self._name)
        self._forbidden = self._forbidden or why
        # IPv6 first, as RFC 6724 would have it, if nothing was tried yet.
        self._waiting = sorted(self._waiting + permitted, key=lambda each: each.version == 4)

    def _begin(self) -> None:
        """Start the next attempt; the families take turns, so that one that is broken costs one try."""
        now = asyncio.get_running_loop().time()
        if self._tried >= MAX_ADDRESSES:
            self._waiting.clear()
        if not self._waiting or (self._attempts and now < self._due):
            return
        self._due = now + STAGGER
        other = [a for a in self._waiting if self._last and a.version != self._last.version]
        address = self._last = (other or self._waiting)[0]
        self._waiting.remove(address)
        self._tried += 1
        self._attempts.add(asyncio.create_task(_connect(address, self._port)))

    async def _step(self) -> socket.socket | None:
        """Wait until something ends or the next address is due."""
        now = asyncio.get_running_loop().time()
        limit = max(0.0, self._due - now) if self._waiting else None
        running = {*self._attempts, *self._lookups}
        await asyncio.wait(running, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        self._take_lookups()
        for attempt in [each for each in self._attempts if each.done()]:
            problem = attempt.exception()
            if problem is None:
                self._attempts.discard(attempt)
                return attempt.result()
            self._attempts.discard(attempt)
            if not isinstance(problem, OSError):
                raise problem
            self._failed = self._failed or problem
            self._due = 0.0
        return None

    def _problem(self) -> DialError | OSError:
        if self._failed is not None:
            return self._failed
        if self._forbidden is not None:
            return DialError(Reply.NOT_ALLOWED, self._forbidden)
        outcome = self._unresolved or Outcome((), "no address")
        code = Reply.TIMED_OUT if outcome.silent else Reply.HOST_UNREACHABLE
        return DialError(code, f"{self._name}: {outcome.reason}")

    async def _clear(self) -> None:
        if not (self._attempts or self._lookups):
            return
        for task in (*self._attempts, *self._lookups):
            task.cancel()
        left = await asyncio.gather(*self._attempts, *self._lookups, return_exceptions=True)
        for each in left:
            if isinstance(each, socket.socket):
                each.close()


def _own_addresses() -> set[Address]:
    interfaces = psutil.net_if_addrs().values()
    inet = (socket.AF_INET, socket.AF_INET6)
    return {
        address_of(entry.address) for each in interfaces for entry in each if entry.family in inet
    }


async def _connect(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    found = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        found.settimeout(0)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await connected(found, (str(address), port))
    except BaseException:
        found.close()
        raise
    return found
