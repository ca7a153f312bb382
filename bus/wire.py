"""SB/1 on the wire: commands to and from the head frame; the commands themselves are in `commands`.

Specification: docs/protocol/sb1.md. A message is one or two frames after the routing id:
the head, which is ``S B 0x01 <command>`` and one MessagePack map of at most 4 KiB whose unknown keys
are ignored, and an optional opaque body.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bus.commands import *  # noqa: F403 - one name, `wire`, for all that is said
from bus.commands import FROM_BROKER, FROM_CLIENT, Bundle, BundleDelivery, Command
from bus.errors import LocalProtocolError, RemoteProtocolError
from bus.fields import *  # noqa: F403
from bus.fields import MAX_BUNDLE

MAGIC = b"SB"
VERSION = 1
MAX_HEAD = 4096 + 4
MAX_MESSAGE_TEXT = 1024  # bytes of the text of an error
BUNDLED = 2048  # bytes of head and body; a larger message goes by itself


class UnknownCommand(RemoteProtocolError):
    """SB/1, but newer than we are: a client ignores it."""


_ENCODE = msgspec.msgpack.Encoder().encode
_PREFIX = {c: MAGIC + bytes((VERSION, c.code)) for c in FROM_CLIENT + FROM_BROKER}
_BUNDLE_HEADS = {
    kind: [_PREFIX[kind] + _ENCODE({"n": n}) for n in range(MAX_BUNDLE + 1)]
    for kind in (Bundle, BundleDelivery)
}
_decode_parts = msgspec.msgpack.Decoder(list[bytes | None]).decode
_decode_bodies = msgspec.msgpack.Decoder(list[bytes]).decode


def encode(command: Command) -> bytes:
    """The head frame of `command`; `LocalProtocolError` when it is over 4 KiB."""
    head = _PREFIX[type(command)] + _ENCODE(command)
    if len(head) > MAX_HEAD:
        raise LocalProtocolError(
            f"{type(command).__name__}: head of {len(head)} bytes, at most {MAX_HEAD}"
        )
    return head


def clip(text: str, limit: int = MAX_MESSAGE_TEXT) -> str:
    """`text` cut to `limit` bytes: a head that echoes foreign text must not grow over its own limit."""
    raw = text.encode(errors="replace")
    return text if len(raw) <= limit else raw[:limit].decode(errors="ignore")


class Decoder:
    """Turns head frames of one direction into commands."""

    def __init__(self, commands: tuple[type[Command], ...]) -> None:
        self._decode: dict[bytes, Any] = {
            _PREFIX[c]: msgspec.msgpack.Decoder(c).decode for c in commands
        }

    def decode(self, head: bytes) -> Command:
        """The command in `head`; `RemoteProtocolError` (400, 413 or 426) for anything else."""
        if len(head) > MAX_HEAD:
            raise RemoteProtocolError(
                413, "too_large", f"head of {len(head)} bytes, at most {MAX_HEAD}"
            )
        decode = self._decode.get(head[:4])
        if decode is None:
            raise _unknown(head)
        try:
            return decode(memoryview(head)[4:])  # type: ignore[no-any-return]
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise RemoteProtocolError(
                400, "bad_frame", f"command 0x{head[3]:02x}: {error}"
            ) from None


def _unknown(head: bytes) -> RemoteProtocolError:
    if head[:2] != MAGIC:
        return RemoteProtocolError(400, "bad_frame", "not SB/1: the head must begin with 'SB'")
    if len(head) > 2 and head[2] != VERSION:
        return RemoteProtocolError(
            426, "version", f"protocol version {head[2]}, this side speaks 1"
        )
    if len(head) <= 3:
        return RemoteProtocolError(400, "bad_frame", "unknown command: missing")
    return UnknownCommand(400, "bad_frame", f"unknown command: 0x{head[3]:02x}")


def join(bodies: list[bytes]) -> bytes:
    """The body of a batch."""
    return _ENCODE(bodies)


Messages = list[tuple[bytes, bytes | None]]  # heads and their bodies


def pack_bundle(
    kind: type[Bundle | BundleDelivery], parts: list[bytes | None]
) -> tuple[bytes, bytes]:
    """Head and body of a bundle; `parts` are heads and bodies in turn."""
    return _BUNDLE_HEADS[kind][len(parts) // 2], _ENCODE(parts)


def unpack_bundle(body: bytes, n: int) -> Messages:
    """The messages of a bundle of `n`; `RemoteProtocolError` when there are not exactly `n`."""
    try:
        parts = _decode_parts(body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise RemoteProtocolError(400, "bad_frame", f"bundle: {error}") from None
    if len(parts) != 2 * n:
        problem = f"bundle of {len(parts)} parts, {2 * n} announced"
        raise RemoteProtocolError(400, "bad_frame", problem)
    return [(head or b"", body) for head, body in zip(parts[::2], parts[1::2], strict=True)]


def split(body: bytes | memoryview, n: int) -> list[bytes]:
    """The bodies of a batch of `n`; `RemoteProtocolError` when there are not exactly `n`."""
    try:
        bodies: list[bytes] = _decode_bodies(body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise RemoteProtocolError(400, "bad_frame", f"batch: {error}") from None
    if len(bodies) != n:
        raise RemoteProtocolError(400, "bad_frame", f"batch of {len(bodies)} bodies, {n} announced")
    return bodies
