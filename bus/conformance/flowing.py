"""Credit of a session and queue groups (section 7)."""

from __future__ import annotations

import msgspec

from bus.conformance.checks import Checks
from bus.conformance.publishing import subscribed
from bus.conformance.results import Unexpected
from bus.conformance.table import Peer, Table

FLOWING = Checks()


def published(peer: Peer, subject: str, *bodies: bytes) -> None:
    """Publish, each with its OK."""
    for body in bodies:
        peer.says("PUBLISH", body, id=1, s=subject)
        peer.hears("OK", ref=1)


@FLOWING.check("a session gets no more messages than it gave credit for, and everything else")
def _(table: Table) -> None:
    alice, bob = table.joins(), table.other_joins("credit", credit={"m": 2, "b": 1 << 20})
    subscribed(bob, 1, table.place)
    published(alice, table.place, b"1", b"2", b"3", b"4")
    bob.hears("DELIVERY", b"1")
    bob.hears("DELIVERY", b"2")
    bob.hears_no_more()
    bob.says("CREDIT", m=1)
    bob.hears("DELIVERY", b"3")
    bob.hears_no_more()
    bob.says("CREDIT", m=5)
    bob.hears("DELIVERY", b"4")


@FLOWING.check("credit in bytes counts bodies; one body may overdraw it")
def _(table: Table) -> None:
    alice, bob = table.joins(), table.other_joins("credit", credit={"m": 100, "b": 10})
    subscribed(bob, 1, table.place)
    published(alice, table.place, b"x" * 8, b"y" * 8, b"z")
    bob.hears("DELIVERY", b"x" * 8)
    bob.hears("DELIVERY", b"y" * 8)
    bob.hears_no_more()
    bob.says("CREDIT", b=7)
    bob.hears("DELIVERY", b"z")


@FLOWING.check("each message of a queue group goes to one member, in turn")
def _(table: Table) -> None:
    alice, one, two = table.joins(), table.other_joins(), table.other_joins()
    watcher = subscribed(table.joins(), 3, table.place)
    subscribed(one, 1, table.place, q="workers")
    subscribed(two, 2, table.place, q="workers")
    bodies = [b"%d" % number for number in range(6)]
    published(alice, table.place, *bodies)
    got = [one.hears("DELIVERY", sid=1).body for _ in range(3)]
    got += [two.hears("DELIVERY", sid=2).body for _ in range(3)]
    one.hears_no_more()
    two.hears_no_more()
    if sorted(got) != bodies:
        raise Unexpected(f"each of {bodies} once", repr(got))
    for body in bodies:
        watcher.hears("DELIVERY", body)


@FLOWING.check("a group's member with a used up window is passed over until it gives back")
def _(table: Table) -> None:
    alice, slow, fast = table.joins(), table.other_joins(), table.other_joins()
    subscribed(slow, 1, table.place, q="workers", window=1)
    subscribed(fast, 2, table.place, q="workers", window=3)
    published(alice, table.place, *[b"%d" % number for number in range(5)])
    slow.hears("DELIVERY", sid=1)
    slow.hears_no_more()
    for _ in range(3):
        fast.hears("DELIVERY", sid=2)
    fast.hears_no_more()
    slow.says("CREDIT", sid=1, m=1)
    slow.hears("DELIVERY", b"4", sid=1)


@FLOWING.check("a batch to a queue group is split among its members")
def _(table: Table) -> None:
    alice, one, two = table.joins(), table.other_joins(), table.other_joins()
    subscribed(one, 1, table.place, q="workers", window=1)
    subscribed(two, 2, table.place, q="workers", window=1)
    alice.says("PUBLISH", msgspec.msgpack.encode([b"a", b"b"]), id=1, s=table.place, n=2)
    alice.hears("OK", ref=1)
    got = {one.hears("DELIVERY").body, two.hears("DELIVERY").body}
    if got not in ({b"a", b"b"}, {msgspec.msgpack.encode([b"a"]), msgspec.msgpack.encode([b"b"])}):
        raise Unexpected("a for one, b for the other", repr(got))


@FLOWING.check("credit that counts for nothing is refused, credit for what is over is passed over")
def _(table: Table) -> None:
    peer = subscribed(table.joins(), 1, table.place)
    for fields in ({"m": 1}, {"sid": 1, "m": 1}, {"sid": 1, "ref": 2, "m": 1}):
        peer.says("CREDIT", **fields)
        peer.hears("ERROR", num=400, err="bad_request")
    for fields in ({"sid": 77, "m": 1}, {"ref": 77, "m": 1}):
        peer.says("CREDIT", **fields)
        peer.hears_no_more()
