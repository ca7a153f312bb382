"""Bundles (section 3): several messages in one."""

from __future__ import annotations

import msgspec

from bus.conformance.checks import Checks
from bus.conformance.table import Table

BUNDLING = Checks()


@BUNDLING.check(
    "the messages of a bundle have the effects that they would have one by one, in order"
)
def _(table: Table) -> None:
    peer, bob = table.joins("bundles"), table.other_joins()
    bob.says("SUBSCRIBE", id=1, sid=1, s=table.place)
    bob.hears("OK", ref=1)
    peer.bundles(
        ("PING", {"t": 1}, None),
        ("PUBLISH", {"s": table.place, "id": 2}, b"-4.5"),
        ("UNSUBSCRIBE", {"id": 3, "sid": 77}, None),
        ("PUBLISH", {"s": table.place, "id": 4}, b""),
    )
    peer.hears("PONG", t=1)
    peer.hears("OK", ref=2)
    peer.hears("ERROR", num=404, err="no_subscription", ref=3)
    peer.hears("OK", ref=4)
    bob.hears("DELIVERY", b"-4.5", from_=peer.key)
    bob.hears("DELIVERY", b"")


@BUNDLING.check("a bundle in a bundle is refused")
def _(table: Table) -> None:
    peer = table.joins("bundles")
    inner = msgspec.msgpack.encode([b"SB\x01\x02\x80", None])
    peer.bundles(("BUNDLE", {"n": 1}, inner), ("PING", {"t": 2}, None))
    peer.hears("ERROR", num=400, err="bad_request")
    peer.hears("PONG", t=2)


@BUNDLING.check("a bundle whose body is not what it announces is refused and cut")
def _(table: Table) -> None:
    ping = b"SB\x01\x02\x80"
    for body in (
        msgspec.msgpack.encode([ping, None]),
        msgspec.msgpack.encode([ping, None, ping]),
        msgspec.msgpack.encode([ping, None, "text", None]),
        b"\xdd\xff\xff\xff\xff",
        b"",
    ):
        peer = table.joins("bundles")
        peer.says("BUNDLE", body, n=2)
        peer.is_told_and_cut(400, "bad_frame")


@BUNDLING.check("what follows an end in a bundle is not carried out")
def _(table: Table) -> None:
    peer, bob = table.joins("bundles"), table.other_joins()
    bob.says("SUBSCRIBE", id=1, sid=1, s=table.place)
    bob.hears("OK", ref=1)
    peer.bundles(("BYE", {}, None), ("PUBLISH", {"s": table.place}, b"late"))
    peer.hears("GOODBYE", num=0)
    peer.is_cut()
    bob.hears_no_more()
