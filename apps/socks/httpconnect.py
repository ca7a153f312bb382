"""HTTP CONNECT (RFC 9110 section 9.3.6), the side that is asked: bytes in, events out, as `protocol` has it.

For programs that know no SOCKS. Nothing but CONNECT is done: this is a way to a place, not a cache, and
reads no page. Who needs a password for SOCKS needs the same here (Basic, RFC 7617).
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from enum import Enum, auto
from ipaddress import IPv6Address
from typing import Final

from apps.socks.protocol import ConnectRequested, Event, Failed, Reply, Send

MAX_HEAD: Final = 8 * 1024  # bytes; browsers send a few hundred
_END: Final = b"\r\n\r\n"
SUCCEEDED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"

_STATUS: Final = {
    Reply.NOT_ALLOWED: (403, "Forbidden", "the exit does not allow this target"),
    Reply.NETWORK_UNREACHABLE: (502, "Bad Gateway", "no way to the exit, or from it to the target"),
    Reply.HOST_UNREACHABLE: (
        502,
        "Bad Gateway",
        "the target is unreachable, or there is no such name",
    ),
    Reply.REFUSED: (502, "Bad Gateway", "the target refused the connection"),
    Reply.TIMED_OUT: (504, "Gateway Timeout", "the target did not answer in time"),
}
_FAILED: Final = (502, "Bad Gateway", "the exit cannot be used just now")


class State(Enum):
    HEAD = auto()
    ANSWERING = auto()  # CONNECT was asked for and not answered yet
    DONE = auto()


class HttpConnect:
    """One client's request, from its first byte to the answer."""

    def __init__(self, users: Mapping[bytes, bytes] | None = None) -> None:
        self._users = users  # None: everybody may; else name -> password
        self._buffer = bytearray()
        self.state = State.HEAD

    @property
    def over(self) -> bool:
        """Whether it is asked for something, or has failed: what comes now is no request."""
        return self.state is not State.HEAD

    @property
    def surplus(self) -> bytes:
        """Bytes after the request: the beginning of the stream."""
        return bytes(self._buffer) if self.over else b""

    def receive(self, data: bytes) -> list[Event]:
        """Take what the client sent, in pieces of any size."""
        if self.over:
            return []
        searched = max(len(self._buffer) - len(_END) + 1, 0)
        self._buffer += data
        end = self._buffer.find(_END, searched)
        if end < 0 and len(self._buffer) < MAX_HEAD:
            return []
        if not 0 <= end <= MAX_HEAD:
            return self._fail(431, "Request Header Fields Too Large", f"more than {MAX_HEAD} bytes")
        head = bytes(self._buffer[:end])
        del self._buffer[: end + len(_END)]
        return self._read(head)

    @property
    def success(self) -> bytes:
        """What answers a CONNECT that was carried out."""
        return SUCCEEDED

    def answer(self, code: Reply, bound: tuple[str, int] | None = None) -> bytes:
        """Give the bytes that answer the CONNECT; there is no `bound` address in HTTP."""
        del bound
        if self.state is not State.ANSWERING:
            raise RuntimeError(f"no CONNECT awaits an answer in state {self.state.name}")
        self.state = State.DONE
        return SUCCEEDED if code is Reply.SUCCEEDED else _refusal(*_STATUS.get(code, _FAILED))

    def _read(self, head: bytes) -> list[Event]:
        first, *lines = head.split(b"\r\n")
        words = first.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return self._fail(400, "Bad Request", "this is a proxy for SOCKS5 and HTTP CONNECT")
        method, place, _ = words
        if not self._permitted(lines):
            wants = 'Proxy-Authenticate: Basic realm="proxy"\r\n'
            text = "username and password are required"
            return self._fail(407, "Proxy Authentication Required", text, wants)
        if method != b"CONNECT":
            text = "only CONNECT is spoken here: no page is fetched for anybody"
            return self._fail(405, "Method Not Allowed", text, "Allow: CONNECT\r\n")
        target = _target(place)
        if target is None:
            return self._fail(400, "Bad Request", "CONNECT wants HOST:PORT")
        self.state = State.ANSWERING
        return [target]

    def _permitted(self, lines: list[bytes]) -> bool:
        if self._users is None:
            return True
        name, password = _credentials(lines)
        expected = self._users.get(name)
        # Compared also for a name that is not there: both failures take the same time.
        return hmac.compare_digest(password, expected if expected is not None else b"\0" + password)

    def _fail(self, status: int, phrase: str, text: str, more: str = "") -> list[Event]:
        self.state = State.DONE
        return [Send(_refusal(status, phrase, text, more)), Failed(f"HTTP: {text}")]


def _refusal(status: int, phrase: str, text: str, more: str = "") -> bytes:
    body = f"{text}\n"
    return (
        f"HTTP/1.1 {status} {phrase}\r\n{more}Content-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode()


def _target(place: bytes) -> ConnectRequested | None:
    """Read HOST:PORT; an IPv6 address stands in brackets."""
    if not place.isascii():
        return None
    host, _, port = place.decode().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        try:
            host = str(IPv6Address(host[1:-1]))
        except ValueError:
            return None
    elif ":" in host:
        return None
    printable = host.isprintable() and 1 <= len(host) <= 255
    if not (printable and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535):
        return None
    return ConnectRequested(host, int(port))


def _credentials(lines: list[bytes]) -> tuple[bytes, bytes]:
    """Name and password of Proxy-Authorization: Basic; empty when there are none."""
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() != b"proxy-authorization":
            continue
        scheme, _, code = value.strip().partition(b" ")
        if scheme.lower() != b"basic":
            continue
        try:
            user, _, password = base64.b64decode(code.strip(), validate=True).partition(b":")
        except (binascii.Error, ValueError):
            continue
        return user, password
    return b"", b""
