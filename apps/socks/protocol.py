"""SOCKS5 (RFC 1928, RFC 1929), the side that is asked: bytes in, events out; no socket, no clock.

What an eager client sent behind the handshake stands in `surplus`: it is the beginning of the stream.

CONNECT and UDP ASSOCIATE are spoken. BIND is read to its end and answered 0x07.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import assert_never

VERSION = 5
AUTH_VERSION = 1
NO_AUTH, PASSWORD, NO_METHOD = 0x00, 0x02, 0xFF
CONNECT, BIND, UDP_ASSOCIATE = 1, 2, 3

# What may be sent before the reply: what travels with the request for the stream.
MAX_SURPLUS = 32 * 1024


class Kind(IntEnum):
    """Address types."""

    IPV4 = 1
    DOMAIN = 3
    IPV6 = 4


class Reply(IntEnum):
    """RFC 1928 section 6."""

    SUCCEEDED = 0
    GENERAL = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED = 5
    TIMED_OUT = 6  # "TTL expired": what everybody uses for it
    COMMAND_UNSUPPORTED = 7
    ADDRESS_UNSUPPORTED = 8


@dataclass(frozen=True)
class Send:
    """Write these bytes to the client."""

    data: bytes


@dataclass(frozen=True)
class ConnectRequested:
    """The client wants a stream to this place; answer with `Handshake.answer`."""

    host: str  # an address in its canonical text, or a name for the far end to resolve
    port: int


@dataclass(frozen=True)
class AssociateRequested:
    """The client wants to send datagrams; answer with `Handshake.answer` and where to send them.

    `host` and `port` are what the client says it will send from; zeros if it does not know.
    """

    host: str
    port: int


@dataclass(frozen=True)
class Failed:
    """The handshake is over: write what `Send` said before, then close."""

    reason: str  # for the log: what the client did


Event = Send | ConnectRequested | AssociateRequested | Failed


class State(Enum):
    """Which message is awaited; one reader each."""

    GREETING = auto()
    CREDENTIALS = auto()
    REQUEST = auto()
    ANSWERING = auto()  # something was asked for and not answered yet
    DONE = auto()  # answered or failed: what comes now is no handshake


def reply(code: Reply, bound: tuple[str, int] = ("0.0.0.0", 0)) -> bytes:  # noqa: S104 - unknown
    """Encode a reply. For CONNECT no bound address: clients ignore it, and it tells about the exit."""
    address = ip_address(bound[0])
    kind = Kind.IPV4 if address.version == 4 else Kind.IPV6
    return bytes((VERSION, code, 0, kind)) + address.packed + bound[1].to_bytes(2)


SUCCEEDED = reply(Reply.SUCCEEDED)


class Handshake:
    """One client's handshake, from its first byte to the reply."""

    def __init__(self, users: Mapping[bytes, bytes] | None = None) -> None:
        self._users = (
            users  # None: everybody may; else name -> password, and nothing else is offered
        )
        self._buffer = bytearray()
        self.state = State.GREETING

    @property
    def over(self) -> bool:
        """Whether it is asked for something, or has failed: what comes now is no handshake."""
        return self.state in (State.ANSWERING, State.DONE)

    @property
    def surplus(self) -> bytes:
        """Bytes after the request: the beginning of the stream."""
        return bytes(self._buffer) if self.over else b""

    def receive(self, data: bytes) -> list[Event]:
        """Take what the client sent, in pieces of any size."""
        if self.state is not State.DONE:
            self._buffer += data
        events: list[Event] = []
        while not self.over and len(self._buffer) >= self._need():
            events += self._read()
        if self.state is State.ANSWERING and len(self._buffer) > MAX_SURPLUS:
            events += self._fail(f"more than {MAX_SURPLUS} bytes before the reply", Reply.GENERAL)
        return events

    @property
    def success(self) -> bytes:
        """What answers a CONNECT that was carried out."""
        return SUCCEEDED

    def answer(self, code: Reply, bound: tuple[str, int] | None = None) -> bytes:
        """Give the bytes that answer the request; `bound` is where datagrams are to be sent."""
        if self.state is not State.ANSWERING:
            raise RuntimeError(f"no request awaits an answer in state {self.state.name}")
        self.state = State.DONE
        if bound is not None:
            return reply(code, bound)
        return reply(code)

    def _need(self) -> int:
        """Tell the length of the awaited message, as far as the bytes that are here reveal it."""
        have = self._buffer
        match self.state:
            case State.GREETING:
                return _need_greeting(have)
            case State.CREDENTIALS:
                return _need_credentials(have)
            case State.REQUEST:
                return _need_request(have)
            case State.ANSWERING | State.DONE:
                return 0
            case _:
                assert_never(self.state)

    def _read(self) -> list[Event]:
        """Read the awaited message, which is complete."""
        message = bytes(self._buffer[: self._need()])
        del self._buffer[: len(message)]
        match self.state:
            case State.GREETING:
                return self._read_greeting(message)
            case State.CREDENTIALS:
                return self._read_credentials(message)
            case _:
                return self._read_request(message)

    def _read_greeting(self, message: bytes) -> list[Event]:
        if message[0] != VERSION:
            # No answer: it would not be understood.
            return self._fail(_describe_stranger(message[0]))
        method = NO_AUTH if self._users is None else PASSWORD
        if method not in message[2:]:
            self.state = State.DONE
            wants = (
                "username and password are required" if self._users else "only no-auth is offered"
            )
            return [Send(bytes((VERSION, NO_METHOD))), Failed(f"no common method: {wants}")]
        self.state = State.REQUEST if self._users is None else State.CREDENTIALS
        return [Send(bytes((VERSION, method)))]

    def _read_credentials(self, message: bytes) -> list[Event]:
        if message[0] != AUTH_VERSION:
            self.state = State.DONE
            return [Send(bytes((AUTH_VERSION, 1))), Failed(f"authentication version {message[0]}")]
        split = 2 + message[1]
        name, password = message[2:split], message[split + 1 :]
        # Compared also for a name that is not there: both failures take the same time.
        expected = (self._users or {}).get(name)
        right = hmac.compare_digest(
            password, expected if expected is not None else b"\0" + password
        )
        if not right:
            self.state = State.DONE
            return [Send(bytes((AUTH_VERSION, 1))), Failed("wrong username or password")]
        self.state = State.REQUEST
        return [Send(bytes((AUTH_VERSION, 0)))]

    def _read_request(self, message: bytes) -> list[Event]:
        version, command, _, kind = message[:4]
        if version != VERSION:
            return self._fail(f"request of version {version}", Reply.GENERAL)
        if kind not in set(Kind):
            return self._fail(f"address type {kind}", Reply.ADDRESS_UNSUPPORTED)
        if command not in (CONNECT, UDP_ASSOCIATE):
            name = "BIND" if command == BIND else f"command {command}"
            return self._fail(name, Reply.COMMAND_UNSUPPORTED)
        host = _read_host(kind, message[4:-2])
        if host is None:
            return self._fail("a host name that is none", Reply.GENERAL)
        self.state = State.ANSWERING
        port = int.from_bytes(message[-2:])
        if command == UDP_ASSOCIATE:
            return [AssociateRequested(host, port)]
        return [ConnectRequested(host, port)]

    def _fail(self, reason: str, code: Reply | None = None) -> list[Event]:
        self.state = State.DONE
        answer: list[Event] = [] if code is None else [Send(reply(code))]
        return [*answer, Failed(reason)]


def _need_greeting(have: bytearray) -> int:
    # A stranger is known by its first byte, and must not be waited for.
    if not have or have[0] != VERSION:
        return 1
    return 2 if len(have) < 2 else 2 + have[1]


def _need_credentials(have: bytearray) -> int:
    if have and have[0] != AUTH_VERSION:
        return 1
    if len(have) < 2:
        return 2
    password_at = 2 + have[1]
    return password_at + 1 + (have[password_at] if len(have) > password_at else 0)


def _need_request(have: bytearray) -> int:
    if len(have) < 4 or have[0] != VERSION:
        return 4
    match have[3]:
        case Kind.IPV4:
            return 4 + 4 + 2
        case Kind.IPV6:
            return 4 + 16 + 2
        case Kind.DOMAIN:
            return 5 if len(have) < 5 else 5 + have[4] + 2
        case _:
            return 4  # of unknown length: refused on sight


def _read_host(kind: int, data: bytes) -> str | None:
    """Read an address; None for a name that cannot be one (it would reach logs and a resolver)."""
    match kind:
        case Kind.IPV4:
            return str(IPv4Address(data))
        case Kind.IPV6:
            return str(IPv6Address(data))
        case _:
            name = data[1:]
            printable = bool(name) and all(0x21 <= byte <= 0x7E for byte in name)
            return name.decode("ascii") if printable else None


def _describe_stranger(first: int) -> str:
    if first == 4:
        return "SOCKS4; only SOCKS5 is spoken here"
    return f"neither SOCKS5 nor HTTP: first byte {first:#04x}"
