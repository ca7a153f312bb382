"""Requests and replies of the mesh on the bus: `mesh.*` to the manager, `node.*` to a node.

Bodies are MessagePack maps. Keys are Z85. Specified in docs/protocol/mesh.md.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec

REGISTER: Final = "mesh.register"  # Registration -> Registered
LINK: Final = "mesh.link"  # LinkReport -> {}
RESOLVE: Final = "mesh.resolve"  # Query -> Resolved
DIAL: Final = "mesh.dial"  # Query -> Dial
ROUTE: Final = "mesh.route"  # Query -> Route
RELEASE: Final = "mesh.release"  # RouteName -> {}
NODES: Final = "mesh.nodes"  # {} -> Nodes

EXPECT: Final = "node.expect"  # Expect -> {}
INSTALL: Final = "node.install"  # Install -> Installed
REMOVE: Final = "node.remove"  # RouteName -> {}
STATUS: Final = "node.status"  # {} -> Status

EVENT_MANAGER: Final = "mesh.event.manager"  # ManagerEvent
EVENT_NODE: Final = "mesh.event.node"  # NodeEvent
EVENT_LINK: Final = "mesh.event.link"  # LinkEvent
EVENT_ROUTE: Final = "mesh.event.route"  # RouteEvent

Key = Annotated[str, msgspec.Meta(min_length=40, max_length=40)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]
Target = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Endpoint = Annotated[str, msgspec.Meta(max_length=256)]
RouteId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Label = Annotated[int, msgspec.Meta(ge=1, le=0xFFFFFFFF)]
Keys = Annotated[list[Key], msgspec.Meta(max_length=4096)]


class Empty(msgspec.Struct, frozen=True):
    """Nothing to say beyond yes."""


class Registration(msgspec.Struct, frozen=True):
    """A node's whole state, sent at the start and every few seconds."""

    name: Name
    endpoint: Endpoint  # where neighbours dial in
    links: Keys = []  # neighbours to which a link is up


class Registered(msgspec.Struct, frozen=True):
    """`manager` is the only key whose node.* requests the node will carry out."""

    manager: Key


class LinkReport(msgspec.Struct, frozen=True):
    neighbour: Key
    up: bool
    reason: Annotated[str, msgspec.Meta(max_length=256)] = ""


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


class Hop(msgspec.Struct, frozen=True):
    """Where to send, and with which label."""

    neighbour: Key
    label: Label


class Route(msgspec.Struct, frozen=True):
    """The way to `peer`: its first hop. Nodes on the way have been told."""

    route: RouteId
    peer: Key
    hop: Hop


class RouteName(msgspec.Struct, frozen=True):
    route: RouteId


class Expect(msgspec.Struct, frozen=True):
    """`key` will dial in."""

    key: Key


class Install(msgspec.Struct, frozen=True):
    """Take frames of `route` that come from `neighbour`.

    With a `peer` they end here, and `onward` is the way back to it, if that is known already;
    without, they are passed on to `onward`.
    """

    route: RouteId
    neighbour: Key
    peer: Key | None = None
    onward: Hop | None = None


class Installed(msgspec.Struct, frozen=True):
    """The label that `neighbour` must use."""

    label: Label


class NodeInfo(msgspec.Struct, frozen=True):
    name: str
    key: str
    endpoint: str
    links: list[str]
    since: float  # unix s


class Nodes(msgspec.Struct, frozen=True):
    nodes: list[NodeInfo]
    routes: list[list[str]] = []  # each the keys of its nodes, in order


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
