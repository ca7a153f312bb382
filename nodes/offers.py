"""What apps offer in the mesh: signed announcements, and the requests to the tracker that lists them.

An app states what it offers; the node at which it listens signs that, so nobody can announce what is
at another's node, and whoever finds an offer can check it without trusting the tracker. The signature
is XEdDSA with the node's CURVE key over `"viscript vouch 1" | u16 port | the statement`. Specified in
docs/tracker.md. Clocks of the machines must agree to within `SKEW`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from bus.identity import is_key, to_bytes
from nodes.api import BadBody, Key, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping

ANNOUNCE: Final = "tracker.announce"  # Announcement -> {}
WITHDRAW: Final = "tracker.withdraw"  # Place -> {}; only by who announced it
FIND: Final = "tracker.find"  # Search -> Found

LOAD: Final = "load"  # a label, "0" to "100": per cent of what it can take is taken
CONTEXT: Final = b"viscript vouch 1"
SKEW: Final = 30.0  # s that the clocks of two machines may differ
MAX_STATEMENT: Final = 1024  # bytes
_PORT: Final = struct.Struct(">H")

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Kind = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
Label = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
Value = Annotated[str, msgspec.Meta(max_length=128)]
Labels = Annotated[dict[Label, Value], msgspec.Meta(max_length=16)]


class Statement(msgspec.Struct, frozen=True):
    """What an app says about itself; `issued` by its own clock."""

    type: Kind
    labels: Labels
    issued: Annotated[int, msgspec.Meta(ge=0, le=2**53)]  # Unix ms
    lifetime: Annotated[int, msgspec.Meta(ge=1, le=600)]  # s

    @property
    def expires(self) -> float:
        """Unix s."""
        return self.issued / 1000 + self.lifetime


class Announcement(msgspec.Struct, frozen=True):
    """A statement, with the place of the app that made it and the signature of its node."""

    key: Key  # of the node
    port: Port
    statement: Annotated[bytes, msgspec.Meta(max_length=MAX_STATEMENT)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Place(msgspec.Struct, frozen=True):
    key: Key
    port: Port


class Search(msgspec.Struct, frozen=True):
    """All offers of this type, or all; `after` is the last place of the answer before."""

    type: Kind | None = None
    after: Place | None = None


class Found(msgspec.Struct, frozen=True):
    """Offers in the order of their places; `more` when others follow."""

    offers: list[Announcement]
    more: bool = False


class BadOffer(Exception):
    """An announcement that counts for nothing; the text says why."""


def state(kind: str, labels: Mapping[str, str], now: float, lifetime: int) -> bytes:
    """A statement as it is signed; raises BadOffer when no tracker would take it."""
    statement = pack(Statement(kind, dict(labels), int(now * 1000), lifetime))
    _read(statement)
    return statement


def text_to_sign(port: int, statement: bytes) -> bytes:
    return CONTEXT + _PORT.pack(port) + statement


def vouch(secret: bytes, port: int, statement: bytes) -> bytes:
    """The node's signature, with its raw CURVE key."""
    import xeddsa

    private = xeddsa.priv_force_sign(secret, False)  # noqa: FBT003 - positional only
    return xeddsa.ed25519_priv_sign(private, text_to_sign(port, statement))


def verified(announcement: Announcement, now: float) -> Statement:
    """What was said, if that node signed it and it is not over; raises BadOffer."""
    import xeddsa

    statement = _read(announcement.statement)
    if statement.expires <= now:
        raise BadOffer(f"expired {now - statement.expires:.0f} s ago")
    if statement.issued / 1000 > now + SKEW:
        raise BadOffer(
            f"issued {statement.issued / 1000 - now:.0f} s in the future: compare the clocks"
        )
    if not is_key(announcement.key):
        raise BadOffer("not a key")
    public = xeddsa.curve25519_pub_to_ed25519_pub(to_bytes(announcement.key), False)  # noqa: FBT003
    text = text_to_sign(announcement.port, announcement.statement)
    if not xeddsa.ed25519_verify(announcement.signature, public, text):
        raise BadOffer("not signed by the node that it names")
    return statement


def load(labels: Mapping[str, str]) -> float:
    """How full it says it is, 0 to 1; what an offer says of itself may be anything."""
    text = labels.get(LOAD, "0")
    return min(int(text), 100) / 100 if text.isascii() and text.isdecimal() else 0.0


def _read(statement: bytes) -> Statement:
    if len(statement) > MAX_STATEMENT:
        raise BadOffer(f"a statement of {len(statement)} bytes, at most {MAX_STATEMENT}")
    try:
        return unpack(statement, Statement)
    except BadBody as error:
        raise BadOffer(str(error)) from None
