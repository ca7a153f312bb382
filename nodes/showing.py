"""What a node holds, as people see it: the tables of nodes.seen out of those of the engine. Reads only."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from nodes import seen
from nodes.mesh import Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nodes.engine import Engine
    from nodes.links.peers import Peer, Peers
    from nodes.pump import Pump
    from nodes.session import Session


def peers(engine: Engine, known: Peers, dialled: Callable[[str], bool], age: float) -> seen.Peers:
    """Links, then those that are only wanted. `age` makes Unix time of the engine's clock."""
    wanted = {peer.key or peer.target: peer for peer in known.shown()}
    shown = []
    for key, link in engine.links.items():
        found = link.metrics()
        since = known.since(key)
        shown.append(
            seen.Peer(
                key=key,
                name=link.name,
                up=True,
                since=since + age if since is not None else None,
                dialled=dialled(key),
                kind=_kind(wanted.pop(key, None)),
                rtt=found.rtt,
                rttvar=found.rttvar,
                retransmits=found.retransmits,
                rate=found.rate,
                bytes_in=found.bytes_in,
                bytes_out=found.bytes_out,
                queued=found.queued,
            )
        )
    shown += [
        seen.Peer(
            key=peer.key or "",
            name="" if peer.target == peer.key else peer.target,
            up=False,
            dialled=True,
            kind=_kind(peer),
            attempts=peer.attempts,
            problem=peer.problem,
        )
        for peer in wanted.values()
    ]
    return seen.Peers(shown[: seen.MAX_ROWS], max(0, len(shown) - seen.MAX_ROWS))


def _kind(peer: Peer | None) -> str:
    if peer is None:
        return "let in"
    return "automatic" if peer.automatic else "persistent"


def routes(engine: Engine, path: Callable[[str], list[str]], now: float) -> seen.Ways:
    """What ends here and what goes on; `path` tells how a route was laid."""
    ways = [
        seen.Way(
            route=way.route,
            peer=way.peer,
            path=path(way.route),
            used=way is session.ways.used,
            standby=way.standby,
            rtt=way.round_trip if way is not session.ways.used else session.round_trip,
            frames=way.frames,
            octets=way.octets,
            bad=way.bad,
            avoided=max(0.0, way.avoided - now),
        )
        for session in engine.sessions.values()
        for way in session.ways.all
    ]
    relays = [
        seen.Relayed(
            entry.route,
            neighbour,
            entry.onward.neighbour,
            entry.frames,
            entry.octets,
            entry.kept,
        )
        for neighbour, table in engine.mesh.tables.items()
        for entry in table.values()
        if isinstance(entry, Relay)
    ]
    most = seen.MAX_ROWS
    left = max(0, len(ways) - most) + max(0, len(relays) - most)
    return seen.Ways(ways[:most], relays[:most], left)


def sessions(engine: Engine, now: float, age: float) -> seen.Sessions:
    most = seen.MAX_ROWS
    shown = [
        _session(peer, session, now, age)
        for peer, session in itertools.islice(engine.sessions.items(), most)
    ]
    return seen.Sessions(shown, max(0, len(engine.sessions) - most))


def _session(peer: str, session: Session, now: float, age: float) -> seen.Session:
    used = session.ways.used
    return seen.Session(
        peer=peer,
        up=session.up,
        since=session.since + age,
        epoch=session.keys.epoch,
        rtt=session.round_trip,
        heard=max(0.0, now - session.liveness.heard),
        streams=len(session.flows.streams),
        unacknowledged=session.outgoing.kept,
        window=session.outgoing.window,
        resent=session.outgoing.resent,
        switches=session.switches,
        bad=session.bad,
        replayed=session.replayed,
        route=used.route if used is not None else "",
        ways=len(session.ways.all),
    )


def streams(engine: Engine, peer: str) -> seen.Streams:
    """Of one peer, or of all where `peer` is empty."""
    pumps = [pump for pump in engine.pumps if peer in ("", pump.lane.peer)]
    shown = [_stream(engine.key, pump) for pump in pumps[: seen.MAX_ROWS]]
    return seen.Streams(shown, len(pumps) - len(shown))


def _stream(own: str, pump: Pump) -> seen.Stream:
    stream, peer = pump.stream, pump.lane.peer
    return seen.Stream(
        peer=peer,
        number=stream.number,
        port=stream.port,
        app=str(getattr(pump.holder, "name", "")),
        ours=(stream.number % 2 == 1) == (own < peer),
        state=str(stream.state),
        bytes_in=stream.received,
        bytes_out=stream.sent,
        may_send=stream.may_send,
        may_receive=stream.may_receive,
    )


_PREFIX = "viscript_node_"
_GAUGES = (
    ("links", "Links that are up."),
    ("sessions", "Sessions with other nodes."),
    ("streams", "Ends of streams that are here."),
    ("relayed_routes", "Directions of routes that go on here."),
)
_PER_LINK = (
    ("link_rtt_seconds", "gauge", "Smoothed round trip to the neighbour.", "rtt"),
    ("link_queued_bytes", "gauge", "Bytes that wait for the link.", "queued"),
    ("link_received_bytes_total", "counter", "Bytes of frames from the neighbour.", "bytes_in"),
    ("link_sent_bytes_total", "counter", "Bytes of frames to the neighbour.", "bytes_out"),
    ("link_rate_bytes", "gauge", "Bytes a second that the link could carry.", "rate"),
    ("link_retransmits", "gauge", "TCP segments sent again, a second.", "retransmits"),
)


def metrics(engine: Engine, name: str, counters: Mapping[str, int]) -> str:
    """Prometheus' text format. Labels are this node's name, keys of neighbours, and words of ours."""
    relays = sum(
        isinstance(entry, Relay)
        for table in engine.mesh.tables.values()
        for entry in table.values()
    )
    values = (len(engine.links), len(engine.sessions), engine.streams, relays)
    node = f'node="{name}"'
    lines: list[str] = []
    for (what, text), value in zip(_GAUGES, values, strict=True):
        lines += _head(what, "gauge", text)
        lines.append(f"{_PREFIX}{what}{{{node}}} {value}")
    lines += _head("events_total", "counter", "What was dropped or broke the rules, by what.")
    lines += [
        f'{_PREFIX}events_total{{{node},what="{what}"}} {count}'
        for what, count in sorted(counters.items())
    ]
    measured = [(key, link.metrics()) for key, link in engine.links.items()][: seen.MAX_ROWS]
    for what, kind, text, attribute in _PER_LINK:
        lines += _head(what, kind, text)
        for key, found in measured:
            value = getattr(found, attribute)
            if value is not None:
                lines.append(f'{_PREFIX}{what}{{{node},neighbour="{key}"}} {value}')
    return "\n".join(lines) + "\n"


def _head(what: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {_PREFIX}{what} {text}", f"# TYPE {_PREFIX}{what} {kind}"
