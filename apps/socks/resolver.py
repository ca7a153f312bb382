"""The exit's resolver: asks the servers of this machine, keeps what they say, and waits for no name twice.

A server that is silent, refuses or talks nonsense costs its share of the time and then the next is asked.
"""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from apps.egress import hostnames, upstream
from apps.egress.dnscache import FAILURE, Cache, life
from apps.egress.hostnames import Address
from apps.egress.replies import Unusable
from apps.egress.upstream import Server
from apps.egress.watched import RESOLV_CONF, Watched
from apps.socks import answers
from apps.socks.answers import Answer, Family, Outcome, Truncated, Useless, Verdict

log = logging.getLogger("socks")

PATIENCE: Final = 1.5, 3.0  # seconds that each server has in the first round, and in the second
MAX_ASKING: Final = 512  # questions that are out at once: two for each dial

HOSTS: Final = Path("/etc/hosts")


class Resolver:
    """Addresses of names. `servers` instead of those of /etc/resolv.conf."""

    def __init__(
        self, servers: Sequence[Server] = (), *, hosts: Path = HOSTS, conf: Path = RESOLV_CONF
    ) -> None:
        self.cache: Cache[tuple[str, Family], Outcome] = Cache()
        self._servers = tuple(servers)
        self._conf = Watched(conf, hostnames.read_servers)
        self._hosts = Watched(hosts, hostnames.read_hosts)
        self._asking: dict[tuple[str, Family], asyncio.Task[Outcome]] = {}
        self._answered: Server | None = None  # who did last, and is asked first

    def known(self, name: str) -> tuple[Address, ...] | None:
        """What is known without asking: fixed names, the hosts file; None to `ask`."""
        found = hostnames.known(name)
        return self._hosts.value().get(name) if found is None else found

    async def ask(self, name: str, family: Family) -> Outcome:
        """The addresses of one family; never raises. Cancel it freely: the answer is still kept."""
        kept = self.cache.get((name, family), time.monotonic())
        if kept is not None:
            return kept.value
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
                    seconds = life(verdict.ttl, positive=bool(verdict.outcome.addresses))
                    self.cache.put((name, family), verdict.outcome, seconds, time.monotonic())
                    return verdict.outcome
                if verdict is not None:
                    problem = Outcome((), f"the resolver said: {verdict.reason}")
            if not problem.silent:
                break  # they answered, and would answer the same
        self.cache.put((name, family), problem, FAILURE, time.monotonic())
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

    try:
        verdict: Verdict = await upstream.over_udp(server, wire, read)
        if isinstance(verdict, Truncated):
            verdict = await upstream.over_tcp(server, wire, read)
    except Unusable as error:
        return Useless(str(error))
    return Useless("truncated over TCP") if isinstance(verdict, Truncated) else verdict
