"""Dialling at the exit: resolve, check every address found, connect to one that was checked.

Names are resolved here and nowhere else, and what is connected is the address that the policy saw:
a second lookup, which could answer something else, never happens.
"""

import asyncio
import contextlib
import errno
import itertools
import socket
import threading
from collections.abc import Sequence

import psutil

from apps.egress.rules import Address, Policy, address_of
from apps.socks.messages import Destination, Refusal
from apps.socks.protocol import Reply

# Before the next address is tried beside the one that does not answer (RFC 8305 recommends it).
STAGGER = 0.25  # seconds
# A name with hundreds of addresses is no reason to dial hundreds.
MAX_ADDRESSES = 8

_REPLIES = {
    errno.ECONNREFUSED: Reply.REFUSED,
    errno.ENETUNREACH: Reply.NETWORK_UNREACHABLE,
    errno.EADDRNOTAVAIL: Reply.NETWORK_UNREACHABLE,  # no source address of that family
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


async def dial(destination: Destination, policy: Policy, seconds: float) -> socket.socket:
    """Give a connected, non-blocking socket; raise DialError."""
    host, port = destination.host, destination.port
    try:
        async with asyncio.timeout(seconds):
            found = await _resolve(host, port)
            return await _connect_first(_permitted(found, port, policy), port)
    except TimeoutError:
        raise DialError(Reply.TIMED_OUT, f"{host}:{port}: no answer in {seconds:g} s") from None
    except OSError as error:
        code = _REPLIES.get(error.errno or 0, Reply.GENERAL)
        raise DialError(code, f"{host}:{port}: {error.strerror or error}") from None


def _permitted(found: Sequence[Address], port: int, policy: Policy) -> list[Address]:
    own = _own_addresses()
    refusals = {address: policy.refusal(address, port, own) for address in found}
    permitted = [address for address, refusal in refusals.items() if refusal is None]
    if not permitted:
        raise DialError(Reply.NOT_ALLOWED, next(iter(refusals.values())) or "no address")
    return _alternate(permitted)[:MAX_ADDRESSES]


def _alternate(addresses: Sequence[Address]) -> list[Address]:
    """Keep the resolver's order but take the families in turn: one that is broken costs one try."""
    first = addresses[0].version
    same = [address for address in addresses if address.version == first]
    other = [address for address in addresses if address.version != first]
    pairs = itertools.zip_longest(same, other)
    return [address for pair in pairs for address in pair if address is not None]


def _own_addresses() -> set[Address]:
    interfaces = psutil.net_if_addrs().values()
    inet = (socket.AF_INET, socket.AF_INET6)
    return {
        address_of(entry.address) for each in interfaces for entry in each if entry.family in inet
    }


async def _resolve(host: str, port: int) -> list[Address]:
    """Resolve in a thread that nobody waits for: a slow resolver must not delay the end."""
    host = host.removeprefix("[").removesuffix("]")
    try:
        return [address_of(host)]
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Address] | OSError] = loop.create_future()

    def settle(result: list[Address] | OSError) -> None:
        if not answer.done():
            answer.set_result(result)

    def work() -> None:
        result = _lookup(host, port)
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it who asked
            loop.call_soon_threadsafe(settle, result)

    threading.Thread(target=work, name="resolver", daemon=True).start()
    result = await answer
    if isinstance(result, OSError):
        raise DialError(Reply.HOST_UNREACHABLE, f"{host}: {result.strerror or result}")
    return result


def _lookup(host: str, port: int) -> list[Address] | OSError:
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [address_of(str(entry[4][0])) for entry in entries]
    except OSError as error:
        return error
    except ValueError:  # a label that is empty or too long, a zero byte
        return OSError(errno.EINVAL, "not a host name")


async def _connect_first(addresses: Sequence[Address], port: int) -> socket.socket:
    """Race to the first that answers, each started a little after the last; raise OSError."""
    waiting = list(addresses)
    attempts: list[asyncio.Task[socket.socket]] = []
    try:
        while True:
            if waiting:
                attempts.append(asyncio.create_task(_connect(waiting.pop(0), port)))
            running = [attempt for attempt in attempts if not attempt.done()]
            if running:
                limit = STAGGER if waiting else None
                await asyncio.wait(running, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            for attempt in attempts:
                if attempt.done() and attempt.exception() is None:
                    attempts.remove(attempt)
                    return attempt.result()
            if not waiting and all(attempt.done() for attempt in attempts):
                return attempts[0].result()  # raises what the preferred address failed with
    finally:
        for attempt in attempts:
            attempt.cancel()
        for left in await asyncio.gather(*attempts, return_exceptions=True):
            if isinstance(left, socket.socket):
                left.close()


async def _connect(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    found = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        found.settimeout(0)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(found, (str(address), port))
    except BaseException:
        found.close()
        raise
    return found
