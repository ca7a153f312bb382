"""Bodies of messages: from what was typed, and as people and programs read them."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

from viscript.errors import BadUsage, NotFound
from viscript.words import one_line

MAX_BODY = 16 << 20  # bytes; over any broker's limit, and a bound for what never ends
SHOWN = 4096  # characters of one body in a line for people


def given(text: str | None, file: Path | None = None) -> bytes:
    """The body: `text`, standard input when it is -, or what is in `file`."""
    if file is not None:
        if text is not None:
            raise BadUsage("BODY and --file name two bodies; give one of them")
        try:
            with file.open("rb") as opened:
                return _bounded(opened.read(MAX_BODY + 1), str(file))
        except FileNotFoundError:
            raise NotFound(f"{file}: no such file") from None
        except IsADirectoryError:
            raise BadUsage(f"{file}: is a folder") from None
    if text == "-":
        return _bounded(sys.stdin.buffer.read(MAX_BODY + 1), "standard input")
    return (text or "").encode()


def _bounded(body: bytes, place: str) -> bytes:
    if len(body) > MAX_BODY:
        raise BadUsage(
            f"{place}: over {MAX_BODY >> 20} MiB; a body has at most what the broker allows"
        )
    return body


def fields(body: bytes) -> dict[str, str]:
    """For programs, nothing lost: `text` if it is UTF-8, else `base64`."""
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def readable(body: bytes) -> str:
    """For people, in one line: text, else MessagePack as JSON, else how many bytes."""
    try:
        shown = body.decode()  # no MessagePack map or array is UTF-8 but by rare accident
    except UnicodeDecodeError:
        shown = _unpacked(body) or f"({len(body)} bytes, not text; --raw or --json show them)"
    if len(shown) > SHOWN:
        return f"{one_line(shown[:SHOWN])}… ({len(body)} bytes)"
    return one_line(shown)


def _unpacked(body: bytes) -> str | None:
    """A MessagePack map or array as JSON; None when it is neither."""
    import msgspec

    try:
        value: Any = msgspec.msgpack.decode(body)
        if isinstance(value, dict | list):
            return msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return None
    return None
