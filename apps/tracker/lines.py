"""The tracker for programs that are not on the bus: one JSON document a line, over TCP.

Specified in docs/tracker.md. Byte strings are base64.
"""

import msgspec

from nodes.offers import Announcement, Kind, Place, Statement

MAX_LINE = 8_192  # bytes of a request


class BadLine(Exception):
    """What came is not a request; the text says why."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Either an announcement, or a question: offers of this type (or all), after this place."""

    announce: Announcement | None = None
    find: Kind | None = None
    after: Place | None = None


class Offer(msgspec.Struct, frozen=True):
    """An offer, and what proves it."""

    type: str
    key: str
    port: int
    labels: dict[str, str]
    expires: float  # Unix s
    statement: bytes
    signature: bytes


def read(line: bytes) -> Request:
    """Raises BadLine."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadLine(str(error)) from None


def offers(found: list[tuple[Announcement, Statement]], *, more: bool) -> bytes:
    shown = [
        Offer(
            statement.type, announcement.key, announcement.port, statement.labels,
            statement.expires, announcement.statement, announcement.signature,
        )
        for announcement, statement in found
    ]  # fmt: skip
    return _line({"offers": shown, "more": more})


def done() -> bytes:
    return _line({"done": True})


def refused(name: str, text: str) -> bytes:
    return _line({"error": name, "message": text})


def _line(answer: object) -> bytes:
    return msgspec.json.encode(answer) + b"\n"


_decoder = msgspec.json.Decoder(Request)
