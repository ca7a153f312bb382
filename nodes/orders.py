"""What the manager has nodes do, signed, and what a node checks before it obeys.

The signature is XEdDSA (Signal's specification of 2016) with the manager's CURVE key, over

    "viscript mesh order 2" | receiver's key (32) | receiver's boot (16) | u8 size, route id
    | u64 serial | u64 expiry (ms of the receiver's clock) | the order

so it is good for one node, one start of that node, once, and for a short time. No clock of a machine
must be right: serials rise within a start, and expiry is told in the receiver's own clock. What is
random is passed in.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from bus.identity import is_key, to_bytes
from nodes import api
from nodes.api import Endpoint, Hop, Key, Path

CONTEXT: Final = b"viscript mesh order 2"
VALID_MS: Final = 30_000  # longer than any request waits for its reply
MAX_AHEAD_MS: Final = 10 * VALID_MS  # an expiry further off was not made for this clock
SIGNATURE_BYTES: Final = 64
_NUMBERS: Final = struct.Struct(">QQ")


class Install(msgspec.Struct, frozen=True, tag="install"):
    """Take frames of the route that come from `neighbour`: with a `peer` they end here, else go on."""

    neighbour: Key
    peer: Key | None = None
    onward: Hop | None = None


class Bind(msgspec.Struct, frozen=True, tag="bind"):
    """The way to `peer` is known: send through `onward`, now (`active`) or if the other one fails."""

    peer: Key
    onward: Hop
    path: Path
    active: bool


class Prefer(msgspec.Struct, frozen=True, tag="prefer"):
    """From now on send to `peer` over this route; the one used so far is the standby."""

    peer: Key


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    """Forget the route."""


class Expect(msgspec.Struct, frozen=True, tag="expect"):
    """`key` will dial in."""

    key: Key


class Peer(msgspec.Struct, frozen=True):
    key: Key
    endpoint: Endpoint


class Suggest(msgspec.Struct, frozen=True, tag="suggest"):
    """Links to these would serve the mesh; the node decides."""

    peers: Annotated[list[Peer], msgspec.Meta(max_length=16)]


Order = Install | Bind | Prefer | Remove | Expect | Suggest
ABOUT_A_ROUTE: Final = (Install, Bind, Prefer, Remove)


class Signed(msgspec.Struct, frozen=True):
    """An order on its way; `route` is empty for orders that are about no route."""

    route: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{16})?$")]
    serial: api.Number
    expires: api.Number
    order: Annotated[bytes, msgspec.Meta(max_length=65_536)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


_decoder: Final = msgspec.msgpack.Decoder(Order)


class NotObeyed(Exception):
    """An order that this node does not carry out; `name` is the error's name on the bus."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


def text_to_sign(receiver: str, boot: bytes, signed: Signed) -> bytes:
    """What the signature is over; raises ValueError when `receiver` is no key."""
    route = signed.route.encode()
    return b"".join(
        (
            CONTEXT,
            to_bytes(receiver),
            boot,
            bytes([len(route)]),
            route,
            _NUMBERS.pack(signed.serial, signed.expires),
            signed.order,
        )
    )


@dataclass(slots=True)
class Receiver:
    """A node as its manager knows it: its clock read `ms` when the manager's own said `told`, in s.

    Serials are counted for each node from what it says it obeyed last, so a manager that lost its
    memory or its clock goes on where it was, and a node that lies about it harms itself only.
    """

    key: str
    boot: bytes
    ms: int
    told: float
    serial: int

    def heard(self, boot: bytes, ms: int, serial: int, now: float) -> None:
        """The node has registered again."""
        self.serial = max(serial, self.serial) if boot == self.boot else serial
        self.boot, self.ms, self.told = boot, ms, now

    def sign(self, secret: str, route: str, order: Order, now: float) -> Signed:
        """An order for this node, signed with the CURVE key `secret`; `now` as in `told`."""
        import xeddsa

        self.serial += 1
        expires = self.ms + max(0, int((now - self.told) * 1000)) + VALID_MS
        unsigned = Signed(
            route, self.serial, expires, msgspec.msgpack.encode(order), bytes(SIGNATURE_BYTES)
        )
        private = xeddsa.priv_force_sign(to_bytes(secret), False)  # noqa: FBT003 - positional only
        text = text_to_sign(self.key, self.boot, unsigned)
        return msgspec.structs.replace(unsigned, signature=xeddsa.ed25519_priv_sign(private, text))


@dataclass(slots=True)
class Guard:
    """The node's side: `manager` is the key it pinned, None before the first."""

    own: str
    boot: bytes
    manager: str | None = None
    serial: int = 0  # of the last order that was obeyed

    def check(self, signed: Signed, now_ms: int) -> Order:
        """The order, if it is for this node and new; raises NotObeyed."""
        import xeddsa

        if self.manager is None or not is_key(self.manager):
            raise NotObeyed("no_manager", "this node has not registered at a node manager yet")
        public = xeddsa.curve25519_pub_to_ed25519_pub(to_bytes(self.manager), False)  # noqa: FBT003
        text = text_to_sign(self.own, self.boot, signed)
        if not xeddsa.ed25519_verify(signed.signature, public, text):
            raise NotObeyed(
                "bad_signature", "not signed by this node's manager for this start of this node"
            )
        if signed.serial <= self.serial:
            raise NotObeyed("replayed", f"order {signed.serial} came after order {self.serial}")
        if not now_ms <= signed.expires <= now_ms + MAX_AHEAD_MS:
            raise NotObeyed("expired", f"good until {signed.expires} ms, here it is {now_ms} ms")
        self.serial = signed.serial
        try:
            order: Order = _decoder.decode(signed.order)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise NotObeyed("bad_order", f"malformed order: {error}") from None
        if isinstance(order, ABOUT_A_ROUTE) != bool(signed.route):
            raise NotObeyed("bad_order", "a route where none belongs, or none where one does")
        return order
