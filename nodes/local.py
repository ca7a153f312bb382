"""Messages between an app and its node: a 4-byte length and a MessagePack map with a `type`.

Specified in docs/protocol/node-app.md. ATTACH, ACCEPT, CONNECT and TUNNEL travel with one file
descriptor.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final, Literal

import msgspec

from nodes.wire import MAX_DATAGRAM, MAX_FIRST_DATA

VERSION: Final = 1
MAX_MESSAGE: Final = 96 * 1024  # a message with 64 KiB of early data and room around it
MAX_EARLY: Final = 64 * 1024
MAX_ALLOWED: Final = 1024  # keys that may use a port
MAX_PREFIXES: Final = 1024  # of one peer of a tunnel
LENGTH: Final = struct.Struct(">I")

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
AnyPort = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Number = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
AppCode = Annotated[int, msgspec.Meta(ge=0, le=255)]
Greeting = Annotated[bytes, msgspec.Meta(max_length=4096)]
Early = Annotated[bytes, msgspec.Meta(max_length=MAX_EARLY)]
FirstData = Annotated[bytes, msgspec.Meta(max_length=MAX_FIRST_DATA)]
DatagramData = Annotated[bytes, msgspec.Meta(max_length=MAX_DATAGRAM)]
Key = Annotated[str, msgspec.Meta(min_length=40, max_length=40)]
Keys = Annotated[list[Key], msgspec.Meta(max_length=MAX_ALLOWED)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86400 * 365)]
Text = Annotated[str, msgspec.Meta(max_length=256)]
Device = Annotated[str, msgspec.Meta(max_length=15)]  # name of a network device
Offload = Literal["auto", "off"]
Mtu = Annotated[int, msgspec.Meta(ge=576, le=65535)]
Prefixes = Annotated[
    list[Annotated[str, msgspec.Meta(max_length=64)]], msgspec.Meta(max_length=MAX_PREFIXES)
]


class _Message(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower):
    pass


# From the app ----------------------------------------------------------------------------------


class Hello(_Message, frozen=True):
    """First message of an app."""

    version: int
    app: Text = ""


class Listen(_Message, frozen=True):
    """Take streams to `port`; those of other nodes than `allow` the node refuses by itself."""

    id: Number
    port: Port
    allow: Keys | None = None  # None: all


class Unlisten(_Message, frozen=True):
    """With an id it is answered: the port is free then."""

    port: Port
    id: Number | None = None


class Open(_Message, frozen=True):
    """Ask for a stream to `port` of the node `target` (a name or a Z85 key)."""

    id: Number
    target: Text
    port: Port
    greeting: Greeting = b""
    timeout: Seconds = 10.0
    early: FirstData = b""  # goes with the request, and into the stream before its bytes


class Connect(_Message, frozen=True):
    """OPEN and ATTACH in one: `head` is written to the descriptor once the far app has accepted."""

    id: Number
    target: Text
    port: Port
    greeting: Greeting = b""
    timeout: Seconds = 10.0
    early: FirstData = b""
    head: Greeting = b""
    idle: Seconds = 0.0  # 0: never


class Cancel(_Message, frozen=True):
    """Give an OPEN or CONNECT up: FAILED, unless it is answered already."""

    id: Number


class Attach(_Message, frozen=True):
    """Hand a descriptor to an opened stream. `early` goes into the stream before its bytes."""

    stream: Number
    idle: Seconds = 0.0  # 0: never
    early: Early = b""


class Accept(_Message, frozen=True):
    """Take an incoming stream and hand its descriptor over."""

    stream: Number
    reply: Greeting = b""
    idle: Seconds = 0.0
    early: Early = b""


class Refuse(_Message, frozen=True):
    stream: Number
    code: AppCode
    reply: Greeting = b""


class Reset(_Message, frozen=True):
    stream: Number


class Bind(_Message, frozen=True):
    """Send datagrams from `port` and take those to it, of `allow` only."""

    id: Number
    port: AnyPort  # 0: the node chooses
    allow: Keys | None = None  # None: all


class Unbind(_Message, frozen=True):
    """As Unlisten."""

    port: Port
    id: Number | None = None


class Send(_Message, frozen=True):
    """A datagram from a bound `port` to port `to` of the node `target`. Never answered."""

    port: Port
    target: Text
    to: Port
    data: DatagramData


class Vouch(_Message, frozen=True):
    """Have the node sign what this app, which listens on `port`, says of itself (nodes.offers)."""

    id: Number
    port: Port
    statement: Annotated[bytes, msgspec.Meta(max_length=1024)]


class Tunnel(_Message, frozen=True):
    """Hand a TUN device to the node, which moves its packets from now on. One for a connection.

    It was opened with IFF_TUN, IFF_NO_PI and IFF_VNET_HDR; `offload` "off": no packet in it is larger
    than `mtu`.
    """

    id: Number
    name: Device
    mtu: Mtu
    offload: Offload = "auto"


class Untunnel(_Message, frozen=True):
    """Give the device back: the node closes it."""

    id: Number


class Peer(_Message, frozen=True):
    """What is sent to `prefixes` goes to the node `target`, and only it may send from there.

    Replaces what was said of it before; without prefixes it is no peer any more.
    """

    id: Number
    target: Text
    prefixes: Prefixes


class AskTunnel(_Message, frozen=True, tag="tunnel_stats"):
    """Ask for TunnelStats."""

    id: Number


# From the node ---------------------------------------------------------------------------------


class Welcome(_Message, frozen=True):
    version: int
    key: str
    name: str


class Done(_Message, frozen=True):
    """The request `id` was carried out."""

    id: Number


class Failed(_Message, frozen=True):
    """The request `id` was not carried out; `refusal` and `reply` are the far app's own words."""

    id: Number
    code: int
    message: str
    refusal: AppCode = 0
    reply: bytes = b""


class Opened(_Message, frozen=True):
    id: Number
    stream: Number
    reply: bytes = b""


class Incoming(_Message, frozen=True):
    stream: Number
    origin: str  # Z85 key of the node where the stream began
    port: Port
    greeting: bytes = b""


class Bound(_Message, frozen=True):
    """BIND was carried out."""

    id: Number
    port: Port


class Datagram(_Message, frozen=True):
    """A datagram came to the bound `port`."""

    port: Port
    origin: str  # Z85 key of the node that sent it, proved
    source: Port  # its port there
    data: bytes


class Vouched(_Message, frozen=True):
    id: Number
    signature: bytes


class TunnelEvent(_Message, frozen=True, tag="tunnel_event"):
    """Something about the tunnel changed: `what` is "up", "down" or "offload".

    `peer` is a key, or empty when it concerns the device; `detail` is for people.
    """

    what: str
    peer: str = ""
    detail: str = ""


class PeerStats(msgspec.Struct, frozen=True):
    """Of one peer of a tunnel, since `since`."""

    key: str
    since: float  # s since the epoch: when it became a peer
    up: bool  # packets can be sent to it
    bytes_in: int  # that came from it and were written to the device
    packets_in: int  # super-packets count once
    bytes_out: int
    packets_out: int
    dropped: dict[str, int]  # packets, by reason
    round_trip: float | None = None  # s
    queued: int = 0  # bytes that wait to be sent
    name: str = ""  # what the app called it


class TunnelStats(_Message, frozen=True, tag="tunnel_stats"):
    """`offload` names what the device gives: of "checksum", "tcp", "udp"."""

    id: Number
    peers: list[PeerStats]
    offload: list[str]
    dropped: dict[str, int]  # packets that belong to no peer, by reason


class Ended(_Message, frozen=True):
    """The far end finished sending, and all it sent has been written to the descriptor."""

    stream: Number


class Closed(_Message, frozen=True):
    """The stream is over; its descriptor is closed at the node."""

    stream: Number
    code: int
    bytes_in: int
    bytes_out: int


AboutStreams = Open | Connect | Cancel | Attach | Accept | Refuse | Reset
AboutTunnels = Tunnel | Untunnel | Peer | AskTunnel
FromApp = Hello | Listen | Unlisten | Bind | Unbind | Send | Vouch | AboutStreams | AboutTunnels
FromNode = (
    Welcome
    | Done
    | Failed
    | Opened
    | Incoming
    | Bound
    | Datagram
    | Vouched
    | TunnelEvent
    | TunnelStats
    | Ended
    | Closed
)


class LocalProtocolError(Exception):
    """The other side of the local socket sent something that is not this protocol."""


_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_encoder: Final = msgspec.msgpack.Encoder()
_from_app: Final[msgspec.msgpack.Decoder[FromApp]] = msgspec.msgpack.Decoder(FromApp)
_from_node: Final[msgspec.msgpack.Decoder[FromNode]] = msgspec.msgpack.Decoder(FromNode)


def encode(message: FromApp | FromNode) -> bytes:
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def decode_from_app(body: bytes) -> FromApp:
    """One message of an app; raises LocalProtocolError."""
    try:
        return _from_app.decode(body)
    except _UNDECODABLE as error:
        raise LocalProtocolError(f"malformed message: {error}") from None


def decode_from_node(body: bytes) -> FromNode:
    """One message of a node; raises LocalProtocolError."""
    try:
        return _from_node.decode(body)
    except _UNDECODABLE as error:
        raise LocalProtocolError(f"malformed message: {error}") from None


class Deframer:
    """Cuts a byte stream into message bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies completed by `data`; raises LocalProtocolError on an oversized one."""
        buffer = self._buffer
        buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(buffer) - start >= LENGTH.size:
            (size,) = LENGTH.unpack_from(buffer, start)
            if size > MAX_MESSAGE:
                raise LocalProtocolError(f"message of {size} bytes (at most {MAX_MESSAGE})")
            end = start + LENGTH.size + size
            if len(buffer) < end:
                break
            bodies.append(bytes(buffer[start + LENGTH.size : end]))
            start = end
        del buffer[:start]
        return bodies

    @property
    def empty(self) -> bool:
        """Whether everything fed so far has been handed out."""
        return not self._buffer
