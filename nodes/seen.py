"""Requests to a node by people who look, and its replies: `node.*` on the bus, apart from orders.

Who may ask is the broker's affair: the role operator. Bodies are MessagePack maps, keys are Z85, times
in seconds. Specified in docs/protocol/mesh.md.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from nodes.api import Number, Target

PEERS: Final = "node.peers"  # {} -> Peers
ROUTES: Final = "node.routes"  # {} -> Ways
SESSIONS: Final = "node.sessions"  # {} -> Sessions
STREAMS: Final = "node.streams"  # Page -> Streams
PING: Final = "node.ping"  # Ping -> Pong
TRACE: Final = "node.trace"  # Trace -> Traced
SPEED: Final = "node.speed"  # Speed -> Measured
METRICS: Final = "node.metrics"  # {} -> Prometheus' text format

SPEED_PORT: Final = 65535  # of the mesh, where a node takes bytes that are only counted
MAX_ROWS: Final = 1000  # in one reply
MAX_PROBES: Final = 10  # of each hop
MAX_SECONDS: Final = 10.0  # of a measurement, and of waiting for an answer

Seconds = Annotated[float, msgspec.Meta(gt=0, le=MAX_SECONDS)]


class Peer(msgspec.Struct, frozen=True):
    """A neighbour: a link, or the attempt to have one."""

    key: str  # empty: not known yet
    name: str  # as the neighbour says, or as it was asked for
    up: bool
    since: float | None = None  # unix s
    dialled: bool = False  # by this node, or by the other one
    kind: str = "let in"  # or "persistent", "automatic"
    rtt: float | None = None
    rttvar: float = 0.0
    retransmits: float = 0.0  # a second
    rate: float | None = None  # bytes/s that it could carry
    bytes_in: int = 0
    bytes_out: int = 0
    queued: int = 0
    attempts: int = 0  # that failed, one after the other
    problem: str = ""  # of the last


class Peers(msgspec.Struct, frozen=True):
    peers: list[Peer]
    left: int = 0


class Way(msgspec.Struct, frozen=True):
    """A route that ends here."""

    route: str
    peer: str
    path: list[str]  # as it was laid; empty when it was not bound yet
    used: bool
    standby: bool  # as the manager wishes
    rtt: float | None  # of the last probe
    frames: int  # that came
    octets: int
    bad: int  # frames that did not open, one after the other
    avoided: float  # for so many seconds more
    since: float | None = None


class Relayed(msgspec.Struct, frozen=True):
    """A route that goes on here, one direction."""

    route: str
    neighbour: str
    onward: str
    frames: int
    octets: int
    kept: int  # bytes that wait for the next link


class Ways(msgspec.Struct, frozen=True):
    """`left`: how many more there are than are told."""

    ways: list[Way]
    relays: list[Relayed]
    left: int = 0


class Session(msgspec.Struct, frozen=True):
    peer: str
    up: bool
    since: float  # unix s
    epoch: int
    rtt: float | None  # from end to end, the shortest of late
    heard: float  # s since the last frame that opened
    streams: int
    unacknowledged: int  # bytes
    window: int
    resent: int  # frames
    switches: int  # of the way
    bad: int  # frames that did not open
    replayed: int
    route: str  # in use; empty for none
    ways: int


class Sessions(msgspec.Struct, frozen=True):
    sessions: list[Session]
    left: int = 0


class Page(msgspec.Struct, frozen=True):
    """Streams of one peer only, or of all."""

    peer: Annotated[str, msgspec.Meta(max_length=40)] = ""


class Stream(msgspec.Struct, frozen=True):
    peer: str
    number: int
    port: int
    app: str  # that holds it here
    ours: bool  # it was opened here
    state: str
    bytes_in: int
    bytes_out: int
    may_send: int  # bytes that the far end still takes
    may_receive: int


class Streams(msgspec.Struct, frozen=True):
    streams: list[Stream]
    left: int = 0


class Ping(msgspec.Struct, frozen=True):
    """One question to the node `to`, sealed from end to end."""

    to: Target
    wait: Seconds = 3.0


class Pong(msgspec.Struct, frozen=True):
    key: str
    rtt: float
    route: str
    waited: float  # s, from the request to the answer: with finding a way and agreeing on keys


class Trace(msgspec.Struct, frozen=True):
    """Who is on the way to `to`: that in use, or the one that stands by."""

    to: Target
    probes: Annotated[int, msgspec.Meta(ge=1, le=MAX_PROBES)] = 3
    wait: Seconds = 2.0
    standby: bool = False


class Hop(msgspec.Struct, frozen=True):
    """`key` is who answered, on its own word and that of those before it; `laid` who should have."""

    hop: int
    key: str
    laid: str
    times: list[float | None]  # None: no answer


class Traced(msgspec.Struct, frozen=True):
    key: str
    route: str
    path: list[str]  # as the manager laid it; empty when that is not known
    hops: list[Hop]


class Speed(msgspec.Struct, frozen=True):
    """Send to the node `to` for so long, and hear from it what came."""

    to: Target
    seconds: Seconds = 3.0


class Measured(msgspec.Struct, frozen=True):
    key: str
    octets: Number  # that came there
    seconds: float  # from the first to the last, by the far clock
    rtt: float | None
