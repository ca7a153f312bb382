"""What the two halves of the VPN tell each other, on a stream to `PORT` of the exit's node.

The greeting of the stream is a `Request`. The exit accepts it with a `Lease` as reply, or refuses it
with the `Why` as code and a `Refusal` as reply. An accepted stream lasts as long as the lease: every
`EVERY` seconds the client says `Alive` and the exit says `Status`. Before it ends a lease the exit says
`Over`. Either ends it by ending the stream; who hears nothing for the `lease` seconds ends it, too.

All are MessagePack maps; on the stream each has its length before it (16 bits, the most significant byte
first) and a `type`. Both ends take the other for hostile: what does not fit raises BadMessage, and the
stream is reset. Specified in docs/vpn-exit.md.
"""

import enum
import struct
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
)
from typing import Annotated, Final, TypeVar

import msgspec

PORT: Final = 4  # of a node
VERSION: Final = 1
EVERY: Final = 5.0  # seconds between two messages
MAX_MESSAGE: Final = 8_192  # bytes, on the stream
MIN_MTU: Final = 1280  # IPv6 has it as the least (RFC 8200, 5)
MAX_MTU: Final = 65_535
MAX_CAPABILITIES: Final = 16
MAX_RESOLVERS: Final = 4
MAX_BLOCKED: Final = 32

_LENGTH: Final = struct.Struct(">H")
# Where an exit may place a client: never at an address that somebody else has in the public network.
_PLACES4: Final = tuple(
    IPv4Network(text) for text in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")
)
_PLACES6: Final = IPv6Network("fc00::/7")

Text = Annotated[str, msgspec.Meta(max_length=256)]
Word = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$")]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e18)]
Mtu = Annotated[int, msgspec.Meta(ge=MIN_MTU, le=MAX_MTU)]


class BadMessage(ValueError):
    """What came is no message of this protocol, or says what may not be; the text says why."""


class Why(enum.IntEnum):
    """Codes of refusals, and of leases that the exit ends."""

    BAD_REQUEST = 1  # not understood, or of a version that is not spoken here
    FULL = 2  # as many clients as it takes
    NOT_ALLOWED = 3  # this key may not use it
    VOLUME = 4  # the volume of this key is used up
    REPLACED = 5  # another client with the same key came
    STOPPING = 6  # the exit is going away
    FAILED = 7  # the exit is not able to, just now


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client may do; 0 is without limit."""

    up: Count = 0  # bytes/s towards the exit
    down: Count = 0  # bytes/s
    connections: Count = 0  # at once
    volume: Count = 0  # bytes both ways, in a day


class Request(msgspec.Struct, frozen=True):
    """What a client asks for. What the exit does not know of the capabilities it passes over."""

    version: int
    capabilities: Annotated[list[Word], msgspec.Meta(max_length=MAX_CAPABILITIES)] = []


class Lease(msgspec.Struct, frozen=True):
    """What a client gets for as long as the stream lasts; the same key gets the same addresses."""

    v4: Text  # with its prefix: always /32
    v6: Text  # always /128
    resolver: Annotated[list[Text], msgspec.Meta(min_length=1, max_length=MAX_RESOLVERS)]
    mtu: Mtu
    lease: Annotated[float, msgspec.Meta(ge=1, le=3600)]  # seconds of silence that end it
    limits: Limits = Limits()
    version: int = VERSION

    @property
    def address4(self) -> IPv4Address:
        return IPv4Interface(self.v4).ip

    @property
    def address6(self) -> IPv6Address:
        return IPv6Interface(self.v6).ip

    @property
    def resolvers(self) -> list[IPv4Address | IPv6Address]:
        return [ip_address(text) for text in self.resolver]


class Refusal(msgspec.Struct, frozen=True):
    """Why there is no lease; the code goes with it in the refusal of the stream."""

    reason: Text


class Alive(msgspec.Struct, frozen=True, tag="alive"):
    """The client is there."""


class Status(msgspec.Struct, frozen=True, tag="status"):
    """How the exit is doing, and how it treats this client."""

    clients: Count  # of the exit
    load: Annotated[float, msgspec.Meta(ge=0, le=1)]  # of what it can carry
    connections: Count = 0  # of this client
    volume: Count = 0  # bytes of this client that count towards its limit
    # Packets of this client that were not let through, by the reason.
    blocked: Annotated[dict[Word, Count], msgspec.Meta(max_length=MAX_BLOCKED)] = {}


class Over(msgspec.Struct, frozen=True, tag="over"):
    """The lease ends, and with it the stream."""

    code: Annotated[int, msgspec.Meta(ge=0, le=255)]  # a Why
    reason: Text


FromClient = Alive
FromExit = Status | Over
_T = TypeVar("_T")


def encode(message: Request | Lease | Refusal) -> bytes:
    """A message outside of the stream: in its greeting, or the reply to that."""
    return _encoder.encode(message)


def read_request(data: bytes) -> Request:
    """Raises BadMessage, also for a version that is not spoken here."""
    request = _decode(data, _requests)
    if request.version != VERSION:
        raise BadMessage(f"version {request.version} is not spoken here, but {VERSION}")
    return request


def read_lease(data: bytes) -> Lease:
    """Raises BadMessage, also for addresses that no exit has to give."""
    lease = _decode(data, _leases)
    if lease.version != VERSION:
        raise BadMessage(f"version {lease.version} is not spoken here, but {VERSION}")
    try:
        v4, v6 = IPv4Interface(lease.v4), IPv6Interface(lease.v6)
        addresses = [v4.ip, v6.ip, *lease.resolvers]
    except ValueError as error:
        raise BadMessage(f"a lease with an address that is none: {error}") from None
    if v4.network.prefixlen != 32 or v6.network.prefixlen != 128:
        raise BadMessage("a lease of more than one address")
    for address in addresses:
        if not _private(address):
            raise BadMessage(f"a lease with {address}, which is not a private address")
    return lease


def read_refusal(data: bytes) -> Refusal:
    """Never fails: a refusal that says nothing is a refusal, too."""
    try:
        return _decode(data, _refusals)
    except BadMessage:
        return Refusal("without a reason")


def frame(message: FromClient | FromExit) -> bytes:
    """A message as it goes over the stream."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class AtExit:
    """Takes the bytes of a client's stream apart."""

    def __init__(self) -> None:
        self._frames = _Frames()

    def feed(self, data: bytes) -> list[FromClient]:
        """What these bytes complete; raises BadMessage."""
        return [_decode(body, _from_client) for body in self._frames.feed(data)]


class AtClient:
    """Takes the bytes of an exit's stream apart."""

    def __init__(self) -> None:
        self._frames = _Frames()

    def feed(self, data: bytes) -> list[FromExit]:
        """What these bytes complete; raises BadMessage."""
        return [_decode(body, _from_exit) for body in self._frames.feed(data)]


class _Frames:
    """Bytes to bodies; keeps at most one body that is not complete."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[bytes]:
        data, bodies = self._held + data, []
        while len(data) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(data)
            if not 1 <= size <= MAX_MESSAGE:
                raise BadMessage(f"a message of {size} bytes, at most {MAX_MESSAGE}")
            if len(data) < _LENGTH.size + size:
                break
            bodies.append(data[_LENGTH.size : _LENGTH.size + size])
            data = data[_LENGTH.size + size :]
        self._held = data
        return bodies


def _private(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        return address in _PLACES6
    return any(address in network for network in _PLACES4)


def _decode(data: bytes, decoder: "msgspec.msgpack.Decoder[_T]") -> _T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(f"malformed: {error}") from None


_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(Request)
_leases = msgspec.msgpack.Decoder(Lease)
_refusals = msgspec.msgpack.Decoder(Refusal)
_from_client = msgspec.msgpack.Decoder(FromClient)
_from_exit = msgspec.msgpack.Decoder(FromExit)
