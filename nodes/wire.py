"""Frames on a link between two nodes and stream records inside them, bytes to values and back.

A frame is a 16-byte head and a payload that relays neither decode nor copy. The payload of a DATA
frame is one stream record: an 8-byte header and its data. All numbers are big-endian; the layout is
specified in docs/protocol/mesh.md.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Annotated, Final

import msgspec

VERSION: Final = 2

HEAD: Final = struct.Struct(">BBBBIQ")  # version<<4|type, lane, epoch, ttl, label, counter
RECORD: Final = struct.Struct(">BBHI")  # kind, code, port, stream
AMOUNT: Final = struct.Struct(">I")  # bytes of credit
_ASKED: Final = struct.Struct(">IH")  # of an OPEN: bytes of credit, and of its greeting

MAX_DATA: Final = 65536  # 16 KiB frames halve the throughput; larger ones only add delay
MAX_FIRST_DATA: Final = 32 * 1024  # of a stream, in its OPEN
MAX_DATAGRAM: Final = 60_000  # bytes of a datagram
MAX_GREETING: Final = 4096  # of a greeting, a reply, a HELLO
MAX_PAYLOAD: Final = MAX_DATA + 64  # room for a record's header and what sealing adds
MAX_FRAME: Final = HEAD.size + MAX_PAYLOAD
KEY_BYTES: Final = 32
SECRET_BYTES: Final = 32
MAX_CONNECTIONS: Final = 16  # for data, of one link

CONTROL_LANE: Final = 0  # urgent
DATA_LANES: Final = 4  # lanes 1 to 4: each in order
DATAGRAM_LANE: Final = 15  # in any order, may be dropped

FIRST_WINDOW: Final = 64 * 1024  # bytes a sender may have on the way before its reader took any
STREAM_WINDOW: Final = 1 << 20  # the same, once the stream has shown that it can use it
MAX_WINDOW: Final = 16 << 20  # the same, on ways that are long and fast
MAX_SESSION_WINDOW: Final = 16 << 20  # bytes one session may have inside the mesh
MAX_CREDIT: Final = 1 << 30


class FrameType(IntEnum):
    HELLO = 1  # first on every link, both ways
    DATA = 2  # sealed end to end
    CLOSE = 3  # the route behind this label has ended
    ALIVE = 4  # nothing but a sign of life
    PING = 5  # the counter is the sender's own time; the neighbour sends it back
    PONG = 6
    HANDSHAKE = 7  # a message of the handshake between the ends of a route
    PROBE = 8  # along a route: whoever counts its ttl down to 0, or its end, answers
    ECHO = 9  # the answer, the other way along the same route


ON_ROUTES: Final = frozenset({FrameType.DATA, FrameType.HANDSHAKE, FrameType.PROBE, FrameType.ECHO})


class Kind(IntEnum):
    OPEN = 1
    OPENED = 2
    REFUSE = 3
    DATA = 4
    CREDIT = 5
    FIN = 6
    RESET = 7


class Code(IntEnum):
    """Why a stream or a route ended."""

    DONE = 0
    RESET = 1
    REFUSED = 2
    NO_LISTENER = 3
    NO_ROUTE = 4
    LINK_LOST = 5
    TARGET_RESET = 6
    IDLE = 7
    APP_GONE = 8
    PROTOCOL = 9
    LIMIT = 10
    TIMEOUT = 11
    STOPPING = 12
    PORT_TAKEN = 13  # only between a node and its app
    NOT_ALLOWED = 14
    NO_TUNNEL = 15  # only between a node and its app

    @property
    def text(self) -> str:
        return _TEXT[self]

    @classmethod
    def of(cls, number: int) -> Code:
        """The code for `number`; one from a later version counts as a plain reset."""
        try:
            return cls(number)
        except ValueError:
            return cls.RESET


_TEXT: Final = {
    Code.DONE: "both sides finished",
    Code.RESET: "the far app cut it",
    Code.REFUSED: "the far app refused it",
    Code.NO_LISTENER: "no app listens on that port of the far node",
    Code.NO_ROUTE: "no route to that node",
    Code.LINK_LOST: "a link on the way was lost",
    Code.TARGET_RESET: "the connection at the far end was reset",
    Code.IDLE: "no traffic within its idle time-out",
    Code.APP_GONE: "the app that held it ended",
    Code.PROTOCOL: "a peer broke the protocol",
    Code.LIMIT: "too many streams",
    Code.TIMEOUT: "no answer in time",
    Code.STOPPING: "the node is stopping",
    Code.PORT_TAKEN: "another app listens on that port",
    Code.NO_TUNNEL: "the device or the peer cannot be used",
    Code.NOT_ALLOWED: "that port of the far node is not for this node",
}


class WireError(Exception):
    """A peer sent bytes that are not this protocol; whoever reads them drops the peer."""


class Hello(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node says first on a link. `key` is checked against the key CURVE proved."""

    version: int
    key: str
    name: str
    connections: Annotated[int, msgspec.Meta(ge=0, le=MAX_CONNECTIONS)] = 0  # for data, at most
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0  # where the listener takes them
    secret: Annotated[bytes, msgspec.Meta(max_length=SECRET_BYTES)] = b""  # for their keys


_hello_decoder: Final = msgspec.msgpack.Decoder(Hello)
_TYPES: Final = {VERSION << 4 | kind: kind.value for kind in FrameType}  # by the first byte
_NOBODY: Final = bytes(KEY_BYTES)
Head = tuple[int, int, int, int, int, int]  # type, lane, epoch, ttl, label, counter


def head(
    kind: int, label: int = 0, counter: int = 0, *, lane: int = 0, epoch: int = 0, ttl: int = 0
) -> bytes:
    return HEAD.pack(VERSION << 4 | kind, lane, epoch, ttl, label, counter)


def frame(
    kind: int, label: int = 0, counter: int = 0, payload: bytes = b"", *, lane: int = 0
) -> bytes:
    """Head and payload in one piece."""
    return head(kind, label, counter, lane=lane) + payload


def parse_head(data: bytes | bytearray | memoryview) -> Head:
    """The head at the start of `data`, which has at least 16 bytes; raises WireError."""
    first, lane, epoch, ttl, label, counter = HEAD.unpack_from(data)
    kind = _TYPES.get(first)
    if kind is None:
        if first >> 4 != VERSION:
            raise WireError(f"frame of version {first >> 4}, this node speaks {VERSION}")
        raise WireError(f"unknown frame type {first & 15}")
    return kind, lane, epoch, ttl, label, counter


def parse_frame(data: memoryview) -> Head:
    """The head of a whole frame; raises WireError, also when the frame has a wrong size."""
    size = len(data)
    if not HEAD.size <= size <= MAX_FRAME:
        raise WireError(f"frame of {size} bytes (allowed: {HEAD.size} to {MAX_FRAME})")
    return parse_head(data)


def hello(key: str, name: str, connections: int = 0, port: int = 0, secret: bytes = b"") -> bytes:
    value = Hello(VERSION, key, name, connections, port, secret)
    return frame(FrameType.HELLO, payload=msgspec.msgpack.encode(value))


def parse_hello(payload: memoryview) -> Hello:
    """The HELLO in a frame's payload; raises WireError."""
    if len(payload) > MAX_GREETING:
        raise WireError(f"HELLO of {len(payload)} bytes (at most {MAX_GREETING})")
    try:
        value = _hello_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"HELLO is malformed: {error}") from None
    if value.version != VERSION:
        raise WireError(f"peer speaks link version {value.version}, this node {VERSION}")
    if value.connections and len(value.secret) != SECRET_BYTES:
        raise WireError("HELLO offers data connections without a secret for them")
    return value


def close(label: int, code: Code, said_by: bytes = _NOBODY) -> bytes:
    """`said_by` is the raw key of the node at which the route ended."""
    return frame(FrameType.CLOSE, label, payload=bytes([code]) + said_by)


def parse_close(payload: memoryview) -> tuple[Code, bytes]:
    """Why, and the key of the node that says so: a claim that nothing proves."""
    said_by = bytes(payload[1 : 1 + KEY_BYTES])
    code = Code.of(payload[0]) if payload else Code.LINK_LOST
    return code, said_by if len(said_by) == KEY_BYTES else _NOBODY


def record(kind: Kind, stream: int, data: bytes = b"", *, code: int = 0, port: int = 0) -> bytes:
    return RECORD.pack(kind, code, port, stream) + data


def credit(stream: int, amount: int) -> bytes:
    """Permission to send `amount` more bytes; stream 0 speaks for the session as a whole."""
    return RECORD.pack(Kind.CREDIT, 0, 0, stream) + AMOUNT.pack(amount)


def open_(stream: int, port: int, window: int, greeting: bytes, early: bytes = b"") -> bytes:
    """`early` are the first bytes of the stream; they are not counted against credit."""
    head = RECORD.pack(Kind.OPEN, 0, port, stream) + _ASKED.pack(window, len(greeting))
    return head + greeting + early


def parse_open(body: memoryview) -> tuple[int, bytes, memoryview]:
    """Credit, greeting and first data of what follows the header; raises WireError."""
    if len(body) < _ASKED.size:
        raise WireError(f"OPEN with {len(body)} bytes after its header, it has {_ASKED.size}")
    window = parse_amount(body)
    size: int = _ASKED.unpack_from(body)[1]
    rest = body[_ASKED.size :]
    if size > MAX_GREETING or size > len(rest):
        raise WireError(f"OPEN with {len(rest)} bytes for a greeting of {size}")
    if len(rest) - size > MAX_FIRST_DATA:
        raise WireError(f"OPEN with {len(rest) - size} bytes of first data")
    return window, bytes(rest[:size]), rest[size:]


def opened(stream: int, window: int, reply: bytes) -> bytes:
    return RECORD.pack(Kind.OPENED, 0, 0, stream) + AMOUNT.pack(window) + reply


def parse_record(payload: memoryview) -> tuple[int, int, int, int]:
    """Kind, code, port and stream of a record; raises WireError."""
    if len(payload) < RECORD.size:
        raise WireError(
            f"stream record of {len(payload)} bytes, its header alone has {RECORD.size}"
        )
    kind, code, port, stream = RECORD.unpack_from(payload)
    return kind, code, port, stream


def parse_amount(data: memoryview) -> int:
    """The credit at the start of `data`; raises WireError."""
    if len(data) < AMOUNT.size:
        raise WireError("record without its credit")
    amount: int = AMOUNT.unpack_from(data)[0]
    if amount > MAX_CREDIT:
        raise WireError(f"credit of {amount} bytes (at most {MAX_CREDIT})")
    return amount
