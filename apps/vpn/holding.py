"""Holds the tunnel: one exit after the other, while the block stands."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from apps.vpn import leasing, machine
from apps.vpn.leasing import NoExit, Place
from apps.vpn.machine import Incapable, MachineError
from apps.vpn.standing import Figures, Standing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

    from apps.vpn.killswitch import Policy
    from apps.vpn.leasing import Held
    from apps.vpn.machine import Machine
    from apps.vpn.messages import Status
    from nodes.client import Node, Tunnel, TunnelEvent

log = logging.getLogger("vpn")

LOOK: Final = 5.0  # seconds between two looks at what may have changed on this machine
MEND: Final = 60.0  # seconds between two looks whether kill switch and rules are there
RETRY: Final = 0.5, 10.0  # seconds between two rounds of asking all exits: the first, and the most
SHORT: Final = 5.0  # seconds; after a lease that was over sooner the exits are not asked at once


@dataclass(frozen=True)
class Device:
    """The TUN device as it is handed to the node."""

    descriptor: int
    mtu: int  # until the exit says another
    offload: Literal["auto", "off"]


class SwitchedOff(Exception):
    """Somebody has put everything back: `viscript vpn off`."""


class Holder:
    """`find` tells which exits there are, the best first; with `fastest` all are asked and weighed."""

    def __init__(
        self,
        owner: Machine,
        policy: Policy,
        device: Device,
        find: Callable[[Node], Awaitable[Sequence[Place]]],
        *,
        fastest: bool,
    ) -> None:
        self.standing = Standing()
        self._machine = owner
        self._policy = policy
        self._device = device
        self._find = find
        self._fastest = fastest
        self._lost = ""  # the exit that was lost last: the others come first
        self._addresses: tuple[IPv4Address | IPv6Address, ...] = ()
        self._down = asyncio.Event()
        self._refreshed: object = None

    async def use(self, node: Node, path: Path) -> None:
        """Hold a tunnel through this node until it is lost; raises NodeError, Incapable, SwitchedOff."""
        await asyncio.to_thread(self._check_links, path)
        device = self._device
        tunnel = await node.tunnel(
            device.descriptor, self._policy.tun, mtu=device.mtu, offload=device.offload
        )
        self.standing.node = node.name
        try:
            await self._work(node, tunnel)
        except ExceptionGroup as group:
            if group.subgroup(SwitchedOff) is not None:
                raise SwitchedOff from None
            raise
        finally:
            self.standing.lost(f"the node {node.name} went away")

    async def _work(self, node: Node, tunnel: Tunnel) -> None:
        async with asyncio.TaskGroup() as tasks:
            working = [
                tasks.create_task(self._hold(node, tunnel)),
                tasks.create_task(self._hear(tunnel)),
                tasks.create_task(self._look(tunnel)),
            ]
            await node.lost.wait()
            for task in working:
                task.cancel()

    async def _hold(self, node: Node, tunnel: Tunnel) -> None:
        pause = RETRY[0]
        while True:
            try:
                held = await self._ask(node)
            except NoExit as error:
                self.standing.lost(str(error))
                log.info("no exit: %s", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, RETRY[1])
                continue
            begun = time.monotonic()
            why = await self._through(node, tunnel, held)
            self._lost = held.place.node
            self.standing.lost(why)
            log.warning("lost the exit %s: %s; nothing leaves meanwhile", held.place.node, why)
            if time.monotonic() - begun >= SHORT:
                pause = RETRY[0]
                continue
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY[1])

    async def _ask(self, node: Node) -> Held:
        """A lease of one of the exits; raises NoExit."""
        places = self._order(await self._find(node))
        if not self._fastest:
            return await leasing.first(node, places, leasing.STAGGER)
        return await leasing.fastest(node, places)

    async def _through(self, node: Node, tunnel: Tunnel, held: Held) -> str:
        """Use this exit until it is lost; returns why."""
        lease, key = held.lease, held.place.node
        self._addresses = (lease.address4, lease.address6)
        prefixes = [str(network) for network in self._policy.tunnelled]
        prefixes += [f"{each}/{each.max_prefixlen}" for each in lease.resolvers]
        self._down.clear()
        try:
            async with held.stream:
                await tunnel.set_peer(key, list(dict.fromkeys(prefixes)))
                await asyncio.to_thread(
                    self._machine.lease, self._policy, self._addresses, lease.resolvers, lease.mtu
                )
                self.standing.connected(held, time.time())
                log.info("connected to the exit %s, as %s and %s", key, *self._addresses)
                return await leasing.attend(held, self._said, self._down)
        except MachineError as error:
            return str(error)
        finally:
            if not node.lost.is_set():
                await tunnel.set_peer(key, [])

    def _order(self, places: Sequence[Place]) -> list[Place]:
        """The one that was just lost comes last, however fast it says that it would do it."""
        placed = sorted(places, key=lambda place: place.node == self._lost)
        if not self._fastest:
            return placed
        return [replace(each, load=1.0) if each.node == self._lost else each for each in placed]

    def _said(self, status: Status) -> None:
        self.standing.status = status

    async def _hear(self, tunnel: Tunnel) -> None:
        async for event in tunnel.events():
            self._happened(event)

    def _happened(self, event: TunnelEvent) -> None:
        log.info("tunnel: %s %s %s", event.what, event.peer, event.detail)
        if event.what == "up":
            self._down.clear()
        elif event.what == "down":
            self._down.set()
        else:
            self.standing.note = event.detail

    async def _look(self, tunnel: Tunnel) -> None:
        """Follow what others change on the machine, and take the figures."""
        loop, due = asyncio.get_running_loop(), 0.0
        while True:
            stats = await tunnel.stats()
            self.standing.figures = Figures.of(stats, time.monotonic(), self.standing.figures)
            if not self._machine.is_on:
                raise SwitchedOff
            try:
                if loop.time() >= due:
                    due = loop.time() + MEND
                    if await asyncio.to_thread(self._machine.mend, self._policy):
                        log.warning("others had taken rules away; they are there again")
                await asyncio.to_thread(self._keep_up)
            except MachineError as error:
                log.warning("%s", error)
                self.standing.note = str(error)
            await asyncio.sleep(LOOK)

    def _keep_up(self) -> None:
        now = self._addresses, machine.listening(self._policy.uid)
        if now != self._refreshed:
            self._machine.refresh(self._policy, self._addresses)
            self._refreshed = now
        held = self.standing.held
        if held is not None and not self._policy.own_dns:
            self._machine.resolve(self._policy, held.lease.resolvers)

    def _check_links(self, path: Path) -> None:
        if self._policy.uid not in machine.links_of(path):
            raise Incapable(
                f"the links of the node behind {path} do not belong to user {self._policy.uid}, so the kill "
                "switch would cut them; restart it as root, and without --egress-uid"
            )
