"""The peers of one check: connections to the broker, what they say and must hear."""

from __future__ import annotations

import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from bus import sockets
from bus.conformance.results import Skipped, Unexpected
from bus.conformance.vectors import codes
from bus.identity import Address, KeyPair

_LARGEST = 64 << 20  # bytes of a message that a broker may send
_TURN = 0.05  # seconds between two looks at the connection
_OVER = sockets.DISCONNECTED | sockets.CLOSED | sockets.HANDSHAKE_FAILED


@dataclass(frozen=True)
class Heard:
    """One message of the broker."""

    name: str
    fields: dict[str, Any]
    body: bytes = b""

    def __str__(self) -> str:
        body = f" body {_shown(self.body)}" if self.body else ""
        return f"{self.name} {_shown(self.fields)}{body}"


def _head(name: str, fields: dict[str, Any]) -> bytes:
    return b"SB\x01" + bytes([codes("client")[name]]) + msgspec.msgpack.encode(fields)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


class Peer:
    """One connection of one key. What it expects comes within the table's patience, or `Unexpected`."""

    def __init__(self, table: Table, pair: KeyPair, routing_id: bytes | None = None) -> None:
        self._table = table
        self.key = pair.public
        self.welcome: dict[str, Any] = {}
        self._unpacked: deque[Heard] = deque()  # of the last bundle
        self._socket, self._monitor = sockets.dial(
            table.context, pair, table.address, max_message=_LARGEST, routing_id=routing_id
        )

    # Saying.

    def says(self, name: str, body: bytes | None = None, /, **fields: object) -> None:
        """Send a command; fields are as on the wire."""
        head = _head(name, fields)
        self.sends(*([head] if body is None else [head, body]), told=f"{name} {_shown(fields)}")

    def bundles(self, *commands: tuple[str, dict[str, Any], bytes | None]) -> None:
        """Send commands, each with fields and body, as one bundle."""
        parts: list[bytes | None] = []
        for name, fields, body in commands:
            parts += [_head(name, fields), body]
        self.says("BUNDLE", msgspec.msgpack.encode(parts), n=len(commands))

    def sends(self, *frames: bytes, told: str = "") -> None:
        """Send frames as they are."""
        shown = " ".join(f.hex() if len(f) <= 80 else f"{f[:80].hex()}…" for f in frames)
        self._table.sent = f"{told} ({shown})" if told else shown
        self._socket.send_multipart(frames)

    def hello(self, body: bytes | None = None, /, **fields: object) -> Self:
        """Open a session with these fields of HELLO."""
        self.says("HELLO", body, **{"name": "conformance", **fields})
        self.welcome = self.hears("WELCOME").fields
        return self

    def asks_broker(self, subject: str, value: object = None) -> dict[str, Any]:
        """A request to the broker itself; its answer decoded. `Skipped` when this key may not."""
        ref = self._table.number()
        body = b"" if value is None else msgspec.msgpack.encode(value)
        self.says("REQUEST", body, id=ref, s=subject, dl=5000)
        answer = self.hears()
        if answer.name == "ERROR" and answer.fields.get("err") == "denied":
            raise Skipped(f"this key may not request {subject}")
        if answer.name != "REPLY-DELIVERY" or answer.fields.get("ref") != ref:
            raise Unexpected(f"REPLY-DELIVERY of {subject}", str(answer))
        return msgspec.msgpack.decode(answer.body, type=dict[str, Any])

    # Hearing.

    def hears(self, name: str = "", body: bytes | None = None, /, **fields: object) -> Heard:
        """The next message, which must be a `name` with these values; `from_` stands for `from`."""
        wanted = {key.removesuffix("_"): value for key, value in fields.items()}
        expected = f"{name or 'anything'} {_shown(wanted)}"
        if body is not None:
            expected += f" body {_shown(body)}"
        heard = self._next(expected)
        differs = any(heard.fields.get(key) != value for key, value in wanted.items())
        if (name and heard.name != name) or differs or body not in {None, heard.body}:
            raise Unexpected(expected, str(heard))
        return heard

    def hears_no_more(self) -> None:
        """PING is answered in order: what comes first would have come before."""
        number = self._table.number()
        self.says("PING", t=number)
        self.hears("PONG", t=number)

    def is_cut(self) -> None:
        """The broker ends the connection; GOODBYE may come before."""
        deadline = time.monotonic() + self._table.patience
        while time.monotonic() < deadline:
            if any(event.kind & _OVER for event in sockets.events(self._monitor)):
                return
            sockets.wait([self._monitor], _TURN)
        raise Unexpected("the connection is cut", "it stays open")

    def is_told_and_cut(self, num: int, err: str) -> None:
        """ERROR with these, GOODBYE with this number, and the cut."""
        self.hears("ERROR", num=num, err=err)
        self.hears("GOODBYE", num=num)
        self.is_cut()

    def is_refused(self) -> None:
        """The handshake ends with the refusal of the key."""
        deadline = time.monotonic() + self._table.patience
        while time.monotonic() < deadline:
            for event in sockets.events(self._monitor):
                if event.kind == sockets.HANDSHAKE_REFUSED:
                    return
                if event.kind == sockets.HANDSHAKE_SUCCEEDED:
                    raise Unexpected("the handshake refuses the key", "it succeeded")
            sockets.wait([self._monitor], _TURN)
        raise Unexpected("the handshake refuses the key", "nothing happened")

    def hangs_up(self) -> None:
        if not self._socket.closed:
            sockets.close(self._socket)

    def _next(self, expected: str) -> Heard:
        if self._unpacked:
            return self._unpacked.popleft()
        deadline = time.monotonic() + self._table.patience
        while (left := deadline - time.monotonic()) > 0:
            # The edge may be swallowed by a look at the state, so look before waiting, and not long.
            if sockets.readable(self._socket):
                heard = self._decoded(self._socket.recv_multipart(sockets.DONTWAIT))
                return self._unbundled(heard) if heard.name == "BUNDLE-DELIVERY" else heard
            if any(event.kind & _OVER for event in sockets.events(self._monitor)):
                if sockets.readable(self._socket):
                    continue
                raise Unexpected(expected, "the connection ended")
            sockets.wait([self._socket], min(_TURN, left))
        raise Unexpected(expected, f"nothing within {self._table.patience:g} s")

    def _unbundled(self, bundle: Heard) -> Heard:
        """The first message of a bundle; the others are heard next."""
        parts = msgspec.msgpack.decode(bundle.body, type=list[bytes | None])
        if not parts or len(parts) != 2 * bundle.fields["n"] or None in parts[::2]:
            raise Unexpected(f"a bundle of {bundle.fields['n']} messages", str(bundle))
        for head, body in zip(parts[::2], parts[1::2], strict=True):
            self._unpacked.append(
                self._decoded([head or b""] if body is None else [head or b"", body])
            )
        return self._unpacked.popleft()

    @staticmethod
    def _decoded(frames: list[bytes]) -> Heard:
        head, *rest = frames
        if head[:3] != b"SB\x01" or len(head) < 4 or len(rest) > 1:
            raise Unexpected("a message of SB/1", " ".join(f[:80].hex() for f in frames))
        names = {code: name for name, code in codes("broker").items()}
        try:
            fields = msgspec.msgpack.decode(head[4:])
        except (ValueError, msgspec.MsgspecError) as error:
            raise Unexpected("a MessagePack map", f"{head.hex()}: {error}") from None
        return Heard(names.get(head[3], f"0x{head[3]:02x}"), fields, b"".join(rest))


@dataclass
class Table:
    """What one check has: two keys that the broker admits, and subjects of its own."""

    address: Address
    pair: KeyPair
    other: KeyPair
    patience: float  # seconds
    sent: str = ""
    place: str = field(default_factory=lambda: f"app.conformance.{secrets.token_hex(4)}")
    context: sockets.Context = field(default_factory=sockets.new_context)
    _peers: list[Peer] = field(default_factory=list)
    _last: int = 1000

    def number(self) -> int:
        """An id that was not used yet."""
        self._last += 1
        return self._last

    def dials(self, pair: KeyPair | None = None, routing_id: bytes | None = None) -> Peer:
        """A connection without a HELLO."""
        peer = Peer(self, pair or self.pair, routing_id)
        self._peers.append(peer)
        return peer

    def joins(self, *caps: str, **hello: object) -> Peer:
        """A session of the first key; `Skipped` when the broker has not these capabilities."""
        return self._joins(self.pair, caps, hello)

    def other_joins(self, *caps: str, **hello: object) -> Peer:
        return self._joins(self.other, caps, hello)

    def _joins(self, pair: KeyPair, caps: tuple[str, ...], hello: dict[str, Any]) -> Peer:
        if caps:
            hello = {"caps": list(caps), **hello}
        peer = self.dials(pair).hello(**hello)
        missing = set(caps) - set(peer.welcome.get("caps", []))
        if missing:
            raise Skipped(f"the broker does not speak {', '.join(sorted(missing))}")
        return peer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for peer in self._peers:
            peer.hangs_up()
        self.context.destroy(linger=0)
