"""Passing frames on, and answering the probes that end here: what a node does for others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nodes import wire
from nodes.lane import TTL
from nodes.wire import FrameType

if TYPE_CHECKING:
    from collections import Counter

    from nodes.links.base import Link, Packet
    from nodes.mesh import Entry, Mesh, Relay
    from nodes.probing import Probing

# Bytes of one route that may wait here for its next link. Honest ends keep one window on the way,
# and may send it a second time when they believe it lost.
MAX_KEPT: Final = 2 * wire.MAX_SESSION_WINDOW


class Relaying:
    """Of one node; `links` are by neighbour."""

    def __init__(
        self, mesh: Mesh, links: dict[str, Link], probing: Probing, counters: Counter[str]
    ) -> None:
        self._mesh, self._links = mesh, links
        self._probing, self._counters = probing, counters

    def pass_on(self, came_from: Link, entry: Relay, packet: Packet) -> bool:
        """Send a frame on; False when the route must be dropped for what waits on it."""
        ttl = packet.ttl - 1
        if ttl <= 0:
            if packet.type == FrameType.PROBE:
                self.echo(entry, came_from, packet)
            else:
                self._counters["ttl_ended"] += 1
            return True
        payload = packet.payload
        size = wire.HEAD.size + len(payload)
        onward, link = entry.onward, self._links[entry.onward.neighbour]
        head = wire.HEAD.pack(
            wire.VERSION << 4 | packet.type,
            packet.lane,
            packet.epoch,
            ttl,
            onward.label,
            packet.counter,
        )
        if entry.kept + size > min(MAX_KEPT, link.room(head)):
            # Windows keep honest ends far below; and nobody else shall suffer for this one. The more
            # waits the less may each: so several that push do not have the link cut for all.
            self._counters["route_overrun"] += 1
            return False
        entry.frames += 1
        entry.octets += len(payload)
        link.forward(head, packet, entry)
        return True

    def echo(self, entry: Entry, came_from: Link, packet: Packet) -> None:
        """Answer a PROBE that ends here, the other way along its route."""
        back = self._mesh.back(entry, came_from.neighbour)
        link = self._links.get(back.neighbour) if back is not None else None
        if back is not None and link is not None:
            payload = self._probing.echo(packet.payload)
            link.send(wire.head(FrameType.ECHO, back.label, ttl=TTL), payload)
