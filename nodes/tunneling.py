"""One app's tunnel at its node: the device that it handed over, and its peers."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Final

from bus.identity import is_key, short
from nodes import local
from nodes.errors import Unreachable
from nodes.tunnel.device import Device, NoDevice
from nodes.tunnel.prefixes import BadPrefix, parse
from nodes.tunnel.records import EVERYTHING, NOTHING
from nodes.tunnel.tunnel import Tunnel
from nodes.wire import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from nodes import posting
    from nodes.channel import Channel
    from nodes.tunnel.tunnel import Peer

FIND_WITHIN: Final = 10.0  # s
MAX_FINDING: Final = 16  # ways looked for at a time
MAX_PEERS: Final = 4096


class Tunneling:
    """See the module. `refused(id, code, text)` tells the app."""

    def __init__(
        self, host: posting.Host, channel: Channel, refused: Callable[[int, Code, str], None]
    ) -> None:
        self._host = host
        self._channel = channel
        self._refused = refused
        self._tunnel: Tunnel | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Give the device up."""
        for task in self._tasks:
            task.cancel()
        if self._tunnel is not None:
            self._host.engine.tunnels.remove(self._tunnel)
            self._tunnel = None

    def receive(self, message: local.AboutTunnels) -> None:
        """Do what the app asks; raises LocalProtocolError for a tunnel without its descriptor."""
        tunnel = self._tunnel
        if isinstance(message, local.Tunnel):
            self._open(message, self._channel.take_descriptor())
        elif tunnel is None:
            self._refused(message.id, Code.NO_TUNNEL, "this app has handed no device over")
        elif isinstance(message, local.Peer):
            self._peer(tunnel, message)
        elif isinstance(message, local.AskTunnel):
            self._send(self._stats(tunnel, message.id))
        else:
            self.close()
            self._send(local.Done(message.id))

    # Watcher of the tunnel ----------------------------------------------------------------------

    def event(self, what: str, peer: str, detail: str) -> None:
        self._send(local.TunnelEvent(what, peer, detail))

    def seek(self, peer: str) -> None:
        if len(self._tasks) < MAX_FINDING:
            self._start(self._find(peer))

    def takes_less(self) -> None:
        if self._tunnel is not None:
            self._host.engine.tunnels.announce(self._tunnel)

    # Messages -----------------------------------------------------------------------------------

    def _open(self, message: local.Tunnel, descriptor: int) -> None:
        engine = self._host.engine
        if self._tunnel is not None:
            os.close(descriptor)
            text = f"this app has handed {self._tunnel.device.name} over: one for each connection"
            self._refused(message.id, Code.NO_TUNNEL, text)
            return
        try:
            device = Device(descriptor, self._host.loop)
        except NoDevice as error:
            os.close(descriptor)
            text = f"device {message.name} cannot be used: {error}"
            self._refused(message.id, Code.NO_TUNNEL, text)
            return
        wanted = EVERYTHING if message.offload == "auto" else NOTHING
        self._tunnel = Tunnel(device, message.mtu, wanted, self, engine.clock)
        engine.tunnels.add(self._tunnel)
        self._send(local.Done(message.id))

    def _peer(self, tunnel: Tunnel, message: local.Peer) -> None:
        if is_key(message.target):
            self._set(tunnel, message, message.target)
        elif len(self._tasks) >= MAX_FINDING:
            text = f"{MAX_FINDING} names are looked up already: ask again"
            self._refused(message.id, Code.LIMIT, text)
        else:
            self._start(self._set_named(tunnel, message))

    async def _set_named(self, tunnel: Tunnel, message: local.Peer) -> None:
        try:
            async with asyncio.timeout(FIND_WITHIN):
                lane = await self._host.route(message.target)
        except TimeoutError:
            text = f"node {message.target!r} was not found within {FIND_WITHIN:g} s"
            self._refused(message.id, Code.TIMEOUT, text)
        except Unreachable as error:
            self._refused(message.id, error.code, str(error))
        else:
            if tunnel is self._tunnel:
                self._set(tunnel, message, lane.peer)

    def _set(self, tunnel: Tunnel, message: local.Peer, key: str) -> None:
        try:
            prefixes = [parse(text) for text in message.prefixes]
            if len(tunnel.peers) >= MAX_PEERS and key not in tunnel.peers:
                raise BadPrefix(f"a tunnel has at most {MAX_PEERS} peers: remove one first")
            self._host.engine.tunnels.set_peer(tunnel, key, prefixes, message.target)
        except BadPrefix as error:
            text = f"peer {_shown(message.target)} of {tunnel.device.name}: {error}"
            self._refused(message.id, Code.NO_TUNNEL, text)
        else:
            self._send(local.Done(message.id))

    async def _find(self, peer: str) -> None:
        """Have a way to a peer, if there is one; the session that comes up says the rest."""
        try:
            async with asyncio.timeout(FIND_WITHIN):
                lane = await self._host.route(peer)
        except (TimeoutError, Unreachable):
            return
        self._host.engine.ping(lane.peer, _heard)

    # Shared -------------------------------------------------------------------------------------

    def _stats(self, tunnel: Tunnel, number: int) -> local.TunnelStats:
        ago = self._host.engine.clock()
        peers = [
            self._figures(peer, time.time() - (ago - peer.since)) for peer in tunnel.peers.values()
        ]
        return local.TunnelStats(number, peers, tunnel.gives.words, dict(tunnel.dropped))

    def _figures(self, peer: Peer, since: float) -> local.PeerStats:
        session = self._host.engine.sessions.get(peer.key)
        return local.PeerStats(
            key=peer.key,
            since=since,
            up=peer.up,
            bytes_in=peer.bytes_in,
            packets_in=peer.packets_in,
            bytes_out=peer.bytes_out,
            packets_out=peer.packets_out,
            dropped=peer.losses(),
            round_trip=session.round_trip if session is not None else None,
            queued=peer.queued,
            name=peer.name,
        )

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._host.tasks.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _send(self, message: local.FromNode) -> None:
        self._channel.send(local.encode(message))


def _heard(_: float) -> None:
    """A ping is asked for the session that it needs."""


def _shown(target: str) -> str:
    return short(target) if is_key(target) else repr(target)
