"""All tunnels of a node: which sessions lead to their peers, and what both ends tell each other.

Each end tells the other by TUNNEL, in the urgent lane of the session, what its device takes; packets are
sent only to a peer that has said so in this session. What a peer says is kept also while nobody here
has it as a peer: it may have spoken first. Bounded by the sessions that there are.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from nodes.tunnel import packets, records
from nodes.tunnel.records import NOTHING, Kind, Takes
from nodes.wire import CONTROL_LANE, WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nodes.lane import Lane
    from nodes.tunnel.packets import Header
    from nodes.tunnel.tunnel import Peer, Tunnel


MAX_CHANGES: Final = 8  # of what a peer's device takes, in a second


class _Said(NamedTuple):
    """What a TUNNEL record said, in the session with this number."""

    session: int
    takes: Takes
    mtu: int


class Tunnels:
    """See the module. `lanes` are the ways to other nodes, by key."""

    def __init__(
        self, lanes: Mapping[str, Lane], counters: Counter[str], clock: Callable[[], float]
    ) -> None:
        self._lanes = lanes
        self._counters = counters
        self._clock = clock
        self._tunnels: list[Tunnel] = []
        self._heard: dict[str, _Said] = {}  # by peer
        self._told: dict[str, _Said] = {}
        self._changes: Counter[str] = Counter()  # TUNNEL records of a peer in this second
        self._cannot: dict[str, int] = {}  # peers that know no tunnels, and the session's number

    def add(self, tunnel: Tunnel) -> None:
        self._tunnels.append(tunnel)

    def remove(self, tunnel: Tunnel) -> None:
        """The app took it back, or is gone."""
        self._tunnels.remove(tunnel)
        for peer in tunnel.peers.values():
            peer.use(None, NOTHING, 0)
            self._announce(peer.key)
        tunnel.close()

    def set_peer(
        self, tunnel: Tunnel, key: str, prefixes: Sequence[tuple[bytes, int]], name: str
    ) -> None:
        """Set, replace or (without prefixes) remove a peer; raises BadPrefix."""
        tunnel.set_peer(key, prefixes, name)
        self._look(key)
        tunnel.agree()

    def announce(self, tunnel: Tunnel) -> None:
        """Tell all peers of a tunnel what it takes now."""
        for key in tunnel.peers:
            self._announce(key)

    def tick(self) -> None:
        """Once a second."""
        now = self._clock()
        self._changes.clear()
        for tunnel in self._tunnels:
            tunnel.tick()
            for peer in tunnel.peers.values():
                lane = self._lanes.get(peer.key)
                if peer.up and lane is not None:
                    lane.session.want(now)
        for known in (self._heard, self._told, self._cannot):
            for key in [key for key in known if key not in self._lanes]:
                del known[key]

    # What sessions say --------------------------------------------------------------------------

    def changed(self, key: str) -> None:
        """The session with this node came, ended, or changed its way."""
        self._look(key)

    def came(self, lane: Lane, record: memoryview, number: int) -> None:
        """A record that is not about streams came in lane `number`. Raises WireError."""
        kind = record[0]
        if kind == Kind.TUNNEL and number == CONTROL_LANE:
            takes, mtu = records.parse_tunnel(record)
            self._changes[lane.peer] += 1
            if self._changes[lane.peer] > MAX_CHANGES:  # each is work, and news for the app
                raise WireError(f"more than {MAX_CHANGES} TUNNEL records in a second")
            self._heard[lane.peer] = _Said(_number(lane), takes, mtu)
            self._look(lane.peer)
        elif kind in {Kind.PACKET, Kind.PACKETS} and number != CONTROL_LANE:
            self._packets(lane.peer, record)
        else:
            raise WireError(f"unknown record {kind} in lane {number}")

    def _packets(self, key: str, record: memoryview) -> None:
        owned = [tunnel for tunnel in self._tunnels if key in tunnel.peers]
        for shape, packet in records.packets(record):
            header = packets.parse(packet)
            if not owned:
                self._counters["tunnel_no_peer"] += 1
            elif header is None:
                owned[0].peers[key].dropped["malformed"] += 1
            else:
                tunnel = owned[0] if len(owned) == 1 else _closest(owned, key, header)
                peer = tunnel.peers[key]
                if tunnel.prefixes.of(header.source) is peer:
                    tunnel.deliver(peer, packet, header, shape)
                else:
                    peer.dropped["foreign_source"] += 1

    def _look(self, key: str) -> None:
        """See whether a peer can be reached, and tell those whom it concerns."""
        self._announce(key)
        lane = self._lanes.get(key)
        heard = self._heard.get(key)
        way = None
        if lane is not None and lane.link is not None and lane.session.up and heard is not None:
            way = lane if heard.session == _number(lane) and heard.mtu else None
        for tunnel in self._tunnels:
            peer = tunnel.peers.get(key)
            if peer is not None:
                self._settle(tunnel, peer, way, heard)

    def _settle(self, tunnel: Tunnel, peer: Peer, way: Lane | None, heard: _Said | None) -> None:
        was, before = peer.up, (peer.takes, peer.mtu)
        takes, mtu = (heard.takes, heard.mtu) if heard is not None else (NOTHING, 0)
        peer.use(way, takes, mtu)
        if peer.up != was:
            words = ", ".join(takes.words) or "single packets"
            detail = f"it takes {words}, MTU {mtu}" if peer.up else "there is no session with it"
            tunnel.watcher.event("up" if peer.up else "down", peer.key, detail)
        if (peer.takes, peer.mtu) != before:
            tunnel.agree()

    def _announce(self, key: str) -> None:
        """Tell a peer what may be sent to it, if it does not know."""
        lane = self._lanes.get(key)
        if lane is None or not lane.session.up:
            return
        owned = [tunnel for tunnel in self._tunnels if key in tunnel.peers]
        number = _number(lane)
        if records.CAPABILITY not in lane.session.keying.capabilities:
            if owned and self._cannot.get(key) != number:
                self._cannot[key] = number
                for tunnel in owned:
                    tunnel.watcher.event("down", key, "that node is older and knows no tunnels")
            return
        said = _Said(number, NOTHING, 0)
        if owned:
            takes = owned[0].accepts
            for tunnel in owned:
                takes &= tunnel.accepts
            said = _Said(number, takes, min(tunnel.mtu for tunnel in owned))
        known = self._told.get(key)
        if known is None or known.session != number:
            known = _Said(number, NOTHING, 0)  # as a new session begins
        if said != known:
            self._told[key] = said
            lane.flows.outbox.append((CONTROL_LANE, records.tunnel(said.takes, said.mtu)))
            lane.flush()


def _closest(tunnels: Sequence[Tunnel], key: str, header: Header) -> Tunnel:
    """Of those that have this peer, the one with the longest prefix for the packet's source.

    Two nodes may be each other's exits: then the peer has addresses in both tunnels.
    """
    return max(tunnels, key=lambda tunnel: tunnel.prefixes.length(header.source, tunnel.peers[key]))


def _number(lane: Lane) -> int:
    """Of the session that stands."""
    agreed = lane.session.keying.agreed
    return agreed.number if agreed is not None else -1
