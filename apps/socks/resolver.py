"""The exit's resolver: asks the servers of this machine, keeps what they say, and waits for no name twice.

A server that is silent, refuses or talks nonsense costs its share of the time and then the next is asked.
Each question has a socket, a source port and an id of its own; what does not answer it is not looked at.
"""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

from apps.egress import hostnames
from apps.egress.hostnames import Address
from apps.socks import answers
from apps.socks.answers import Answer, Truncated, Useless, Verdict
from apps.socks.dnscache import FAILURE, Cache, Family, Outcome

log = logging.getLogger("socks")

PATIENCE: Final = 1.5, 3.0  # seconds that each server has in the first round, and in the second
MAX_ASKING: Final = 512  # questions that are out at once: two for each dial
MAX_STRAYS: Final = 64  # datagrams that answer nothing, before a server is given up
LOOK_EVERY: Final = 1.0  # seconds between two looks at a file

RESOLV_CONF: Final = Path("/etc/resolv.conf")
HOSTS: Final = Path("/etc/hosts")
MAX_FILE: Final = 4 << 20  # bytes of it that are read

Server = tuple[str, int]  # address and port
_T = TypeVar("_T")


class _Watched(Generic[_T]):
    """A small file, read again when it has changed."""

    def __init__(self, path: Path, read: Callable[[str], _T]) -> None:
        self._path = path
        self._read = read
        self._value = read("")
        self._stamp: tuple[int, int, int] | None = None
        self._looked = 0.0

    def value(self) -> _T:
        now = time.monotonic()
        if not self._looked or now - self._looked >= LOOK_EVERY:
            self._looked = now
            self._look()
        return self._value

    def _look(self) -> None:
        try:
            about = self._path.stat()
            stamp = (about.st_mtime_ns, about.st_size, about.st_ino)
            if stamp == self._stamp:
                return
            with self._path.open("rb") as file:
                text = file.read(MAX_FILE).decode(errors="replace")
        except OSError:
            stamp, text = (0, 0, 0), ""
            if stamp == self._stamp:
                return
        self._stamp, self._value = stamp, self._read(text)


class Resolver:
    """Addresses of names. `servers` instead of those of /etc/resolv.conf."""

    def __init__(
        self, servers: Sequence[Server] = (), *, hosts: Path = HOSTS, conf: Path = RESOLV_CONF
    ) -> None:
        self.cache = Cache()
        self._servers = tuple(servers)
        self._conf = _Watched(conf, hostnames.read_servers)
        self._hosts = _Watched(hosts, hostnames.read_hosts)
        self._asking: dict[tuple[str, Family], asyncio.Task[Outcome]] = {}
        self._answered: Server | None = None  # who did last, and is asked first

    def known(self, name: str) -> tuple[Address, ...] | None:
        """What is known without asking: fixed names, the hosts file; None to `ask`."""
        found = hostnames.known(name)
        return self._hosts.value().get(name) if found is None else found

    async def ask(self, name: str, family: Family) -> Outcome:
        """The addresses of one family; never raises. Cancel it freely: the answer is still kept."""
        kept = self.cache.get(name, family, time.monotonic())
        if kept is not None:
            return kept
        task = self._asking.get((name, family))
        if task is None:
            if len(self._asking) >= MAX_ASKING:
                return Outcome((), "the exit's resolver is busy", silent=True)
            task = asyncio.create_task(self._ask_servers(name, family))
            self._asking[name, family] = task
            task.add_done_callback(lambda _: self._asking.pop((name, family), None))
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Give up what is asked just now."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _in_order(self) -> list[Server]:
        servers = self._servers or tuple((host, 53) for host in self._conf.value())
        return sorted(servers, key=lambda server: server != self._answered)

    async def _ask_servers(self, name: str, family: Family) -> Outcome:
        servers = self._in_order()
        problem = Outcome((), "no resolver answers", silent=True)
        for patience in PATIENCE:
            for server in servers:
                verdict = await _ask_patiently(server, name, family, patience)
                if isinstance(verdict, Answer):
                    self._answered = server
                    now = time.monotonic()
                    self.cache.put(name, family, verdict.outcome, verdict.ttl, now)
                    return verdict.outcome
                if verdict is not None:
                    problem = Outcome((), f"the resolver said: {verdict.reason}")
            if not problem.silent:
                break  # they answered, and would answer the same
        self.cache.put(name, family, problem, FAILURE, time.monotonic())
        return problem


async def _ask_patiently(
    server: Server, name: str, family: Family, patience: float
) -> Answer | Useless | None:
    """One server; None when it did not answer in time."""
    try:
        async with asyncio.timeout(patience):
            verdict = await _ask(server, name, family, edns=True)
            if isinstance(verdict, Useless) and verdict.plain:
                verdict = await _ask(server, name, family, edns=False)
            return verdict
    except TimeoutError:
        return None
    except OSError as error:  # nobody there, no way to it
        return Useless(error.strerror or os.strerror(error.errno or 0))


async def _ask(server: Server, name: str, family: Family, *, edns: bool) -> Answer | Useless:
    asked = answers.question(name, family, secrets.randbelow(1 << 16), edns=edns)
    wire = asked.to_wire()

    def read(data: bytes) -> Verdict | None:
        return answers.read(data, asked)

    verdict = await _over_udp(server, wire, read)
    if isinstance(verdict, Truncated):
        verdict = await _over_tcp(server, wire, read)
    return Useless("truncated over TCP") if isinstance(verdict, Truncated) else verdict


async def _over_udp(
    server: Server, wire: bytes, read: Callable[[bytes], Verdict | None]
) -> Verdict:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(0)
        # Connected: the kernel drops what others send, and tells when nobody is there.
        sock.connect(_place(server, family))
        await loop.sock_sendall(sock, wire)
        for _ in range(MAX_STRAYS):
            verdict = read(await loop.sock_recv(sock, 65_535))
            if verdict is not None:
                return verdict
    return Useless("answers to other questions")


async def _over_tcp(
    server: Server, wire: bytes, read: Callable[[bytes], Verdict | None]
) -> Verdict:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(wire).to_bytes(2) + wire)
        size = int.from_bytes(await reader.readexactly(2))
        if size > answers.MAX_ANSWER:
            return Useless("an answer that is too large")
        verdict = read(await reader.readexactly(size))
    except asyncio.IncompleteReadError:
        verdict = None
    finally:
        writer.transport.abort()
    return verdict or Useless("an answer to another question")


def _place(server: Server, family: int) -> tuple[str | int, ...]:
    host, port = server
    if family == socket.AF_INET:
        return server
    host, _, scope = host.partition("%")
    return host, port, 0, socket.if_nametoindex(scope) if scope else 0
