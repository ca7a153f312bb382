"""Requests and replies of the mesh on the bus: `mesh.*` to the manager, `node.*` to a node.

Bodies are MessagePack maps. Keys are Z85. Specified in docs/protocol/mesh.md. What the manager has
nodes do is in nodes.orders.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeVar

import msgspec

REGISTER: Final = "mesh.register"  # Registration -> Registered
STANDING: Final = "mesh.standing"  # Standing -> {}
LINK: Final = "mesh.link"  # LinkReport -> {}
RESOLVE: Final = "mesh.resolve"  # Query -> Resolved
DIAL: Final = "mesh.dial"  # Query -> Dial
ROUTE: Final = "mesh.route"  # Query -> Route
RELEASE: Final = "mesh.release"  # Release -> {}
POLICY: Final = "mesh.policy"  # Wanted -> Route
LAY: Final = "mesh.lay"  # Lay -> Route
FREE: Final = "mesh.free"  # Pair -> {}
NODES: Final = "mesh.nodes"  # Look -> Nodes
WISHES: Final = "mesh.wishes"  # After -> Wishes
WHY: Final = "mesh.why"  # Pair -> Why

ORDER: Final = "node.order"  # nodes.orders.Signed -> Installed or {}
STATUS: Final = "node.status"  # {} -> Status

EVENT_MANAGER: Final = "mesh.event.manager"  # ManagerEvent
EVENT_NODE: Final = "mesh.event.node"  # NodeEvent
EVENT_LINK: Final = "mesh.event.link"  # LinkEvent
EVENT_ROUTE: Final = "mesh.event.route"  # RouteEvent

MAX_PATH: Final = 17  # nodes: what lives longer than 16 links is slower than any detour
MAX_STANDING: Final = 128  # routes in one Standing

Key = Annotated[str, msgspec.Meta(min_length=40, max_length=40)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]
Target = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Endpoint = Annotated[str, msgspec.Meta(max_length=256)]
RouteId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}$")]
Label = Annotated[int, msgspec.Meta(ge=1, le=0xFFFFFFFF)]
Path = Annotated[list[Key], msgspec.Meta(min_length=2, max_length=MAX_PATH)]
Amount = Annotated[float, msgspec.Meta(ge=0)]
Reason = Annotated[str, msgspec.Meta(max_length=256)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Empty(msgspec.Struct, frozen=True):
    """Nothing to say beyond yes."""


class LinkState(msgspec.Struct, frozen=True):
    """A link that is up, as the node at this end measured it; None is not measured yet."""

    neighbour: Key
    rtt: Amount | None = None  # s, the shortest of late
    rttvar: Amount = 0.0  # s
    retransmits: Amount = 0.0  # a second
    rate: Amount | None = None  # bytes/s it could carry
    used: Amount = 0.0  # bytes/s it carries
    queued: Amount = 0.0  # bytes that wait for it


class Registration(msgspec.Struct, frozen=True):
    """A node's whole state but for its routes, sent at the start and every few seconds.

    `boot` is random for each start of the node and `clock` its own clock: orders are signed for
    that start and expire by that clock, so no clock of a machine need be right. `routes` and
    `digest` (all route ids as numbers, by exclusive or) describe the routes that end here.
    """

    name: Name
    endpoint: Endpoint  # where neighbours dial in; empty: they cannot
    boot: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    clock: Number  # ms
    serial: Number  # of the last order it obeyed since that start
    links: Annotated[list[LinkState], msgspec.Meta(max_length=4096)] = []
    routes: Number = 0
    digest: Annotated[int, msgspec.Meta(ge=0)] = 0
    auto_peers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0  # links it would take suggestions for


class Registered(msgspec.Struct, frozen=True):
    """`manager` signs what the node will do; with `tell` it wants to hear of all its routes."""

    manager: Key
    tell: bool = False


class StandingRoute(msgspec.Struct, frozen=True):
    """A route that ends at the node that says so."""

    route: RouteId
    path: Path  # as it was laid
    active: bool  # or the standby


class Standing(msgspec.Struct, frozen=True):
    """Routes that end at this node; `more` when others follow in a further request."""

    routes: Annotated[list[StandingRoute], msgspec.Meta(max_length=MAX_STANDING)]
    more: bool = False


class LinkReport(msgspec.Struct, frozen=True):
    neighbour: Key
    up: bool
    reason: Reason = ""


class Query(msgspec.Struct, frozen=True):
    """A node, by its name or key."""

    to: Target


class Resolved(msgspec.Struct, frozen=True):
    key: Key
    name: str


class Dial(msgspec.Struct, frozen=True):
    """Where to dial; the node there has been told to expect the caller."""

    key: Key
    endpoint: Endpoint


class Policy(msgspec.Struct, frozen=True):
    """Which way is good: `metric` decides among the ways that the rest allows.

    Hops are links. Nodes of `must` and `avoid` are keys or names; the ends are in neither.
    """

    metric: Literal["fastest", "shortest", "widest"] = "fastest"
    min_hops: Annotated[int, msgspec.Meta(ge=1, le=MAX_PATH - 1)] = 1
    max_hops: Annotated[int, msgspec.Meta(ge=1, le=MAX_PATH - 1)] = MAX_PATH - 1
    must: Annotated[list[Target], msgspec.Meta(max_length=8)] = []
    avoid: Annotated[list[Target], msgspec.Meta(max_length=64)] = []


class Wanted(msgspec.Struct, frozen=True):
    """Which way is good between two nodes, by name or key, from now on."""

    a: Target
    b: Target
    policy: Policy


class Hop(msgspec.Struct, frozen=True):
    """Where to send, and with which label."""

    neighbour: Key
    label: Label


class Route(msgspec.Struct, frozen=True):
    """The way to `peer` stands: both ends and all between have carried their orders out."""

    route: RouteId
    peer: Key
    path: Path


class Release(msgspec.Struct, frozen=True):
    """An end has lost a route, or has no more use for it (`unused`); `at` names who ended it."""

    route: RouteId
    reason: Reason = ""
    at: Annotated[str, msgspec.Meta(max_length=40)] = ""
    unused: bool = False


class Lay(msgspec.Struct, frozen=True):
    """A route by hand: these nodes, by name or key, in this order."""

    path: Annotated[list[Target], msgspec.Meta(min_length=2, max_length=MAX_PATH)]


class Pair(msgspec.Struct, frozen=True):
    """Two ends, by name or key."""

    a: Target
    b: Target


class Installed(msgspec.Struct, frozen=True):
    """The label that the neighbour must use."""

    label: Label


class NodeInfo(msgspec.Struct, frozen=True):
    name: str
    key: str
    endpoint: str
    links: list[str]  # neighbours to which a link is up as both ends say
    since: float  # unix s
    claimed: list[str] = []  # neighbours that do not confirm the link


class EdgeInfo(msgspec.Struct, frozen=True):
    """A link, by what both ends measured: the worse of the two."""

    a: str
    b: str
    rtt: float | None  # s
    rate: float | None  # bytes/s
    load: float  # 0 to 1
    retransmits: float  # a second
    flaps: float  # lost how often of late; halves each minute


class RouteInfo(msgspec.Struct, frozen=True):
    route: str
    path: list[str]
    active: bool  # or the standby
    since: float  # unix s


class Look(msgspec.Struct, frozen=True):
    """What is wanted beside the nodes; `after` is `next` of the answer before, empty for the first."""

    routes: bool = True
    edges: bool = True
    after: Annotated[str, msgspec.Meta(max_length=128)] = ""


class Nodes(msgspec.Struct, frozen=True):
    """As much as a message holds: first nodes, then routes, then edges; `next` if there is more."""

    nodes: list[NodeInfo]
    routes: list[RouteInfo] = []
    edges: list[EdgeInfo] = []
    next: str = ""


class Wish(msgspec.Struct, frozen=True):
    """What people want for the ways between two nodes; all nodes are keys, `a` the smaller end."""

    a: Key
    b: Key
    policy: Policy = Policy()
    by_hand: Path | None = None  # from `a` to `b`


class After(msgspec.Struct, frozen=True):
    """What comes after this pair, in the order of the keys; empty: from the first on."""

    a: Annotated[str, msgspec.Meta(max_length=40)] = ""
    b: Annotated[str, msgspec.Meta(max_length=40)] = ""


class Wishes(msgspec.Struct, frozen=True):
    """`more` when others follow."""

    wishes: list[Wish]
    more: bool = False


class Considered(msgspec.Struct, frozen=True):
    """A way that was or was not taken, and why in a few words."""

    path: list[str]
    cost: float  # s for fastest and widest, hops for shortest
    verdict: str


class Why(msgspec.Struct, frozen=True):
    """Why traffic between two nodes goes the way it goes. All empty: nobody asked for one."""

    policy: Policy
    by_hand: bool
    ways: list[Considered] = []
    problem: str = ""  # why the last attempt to lay one failed


class RelayInfo(msgspec.Struct, frozen=True):
    route: str
    neighbour: str
    onward: str
    frames: int
    octets: int


class Status(msgspec.Struct, frozen=True):
    """What a node holds."""

    name: str
    key: str
    links: list[str]
    sessions: list[str]  # peers
    relays: list[RelayInfo]
    streams: int
    counters: dict[str, int] = {}


class ManagerEvent(msgspec.Struct, frozen=True):
    """A manager has started; nodes register again."""

    key: str
    state: str  # "up"


class NodeEvent(msgspec.Struct, frozen=True):
    name: str
    key: str
    state: str  # "up" or "down"


class LinkEvent(msgspec.Struct, frozen=True):
    a: str
    b: str
    state: str  # "up" or "down"
    reason: str = ""


class RouteEvent(msgspec.Struct, frozen=True):
    route: str
    path: list[str]
    state: str  # "up" or "down"
    reason: str = ""


class BadBody(Exception):
    """A body is not what its subject says."""


_T = TypeVar("_T", bound=msgspec.Struct)
_encoder: Final = msgspec.msgpack.Encoder()


def pack(value: msgspec.Struct) -> bytes:
    return _encoder.encode(value)


def unpack(body: bytes, kind: type[_T]) -> _T:
    """The body as a `kind`; raises BadBody."""
    try:
        return msgspec.msgpack.decode(body or b"\x80", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadBody(f"malformed body: {error}") from None
