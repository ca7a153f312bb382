"""Batches (section 9): several requests, or replies, in one command."""

from __future__ import annotations

import msgspec

from bus.conformance.asking import serving
from bus.conformance.checks import Checks
from bus.conformance.results import Unexpected
from bus.conformance.table import Heard, Peer, Table

BATCHING = Checks()
join = msgspec.msgpack.encode


def _each(peer: Peer, kind: str, key: str, count: int) -> dict[int, bytes]:
    """What is heard, in however many commands: bodies by handle or ref."""
    found: dict[int, bytes] = {}
    while len(found) < count:
        heard: Heard = peer.hears(kind)
        n = heard.fields.get("n", 1)
        bodies = [heard.body] if n == 1 else msgspec.msgpack.decode(heard.body)
        found.update(enumerate(bodies, heard.fields[key]))
    return found


def _are(answers: dict[int, bytes], wanted: dict[int, bytes]) -> None:
    if answers != wanted:
        raise Unexpected(f"the answers {wanted}", str(answers))


@BATCHING.check("each request of a batch is answered, together or by itself, in any order")
def _(table: Table) -> None:
    alice, bob = table.joins("batches"), serving(table.other_joins("batches"), table.place)
    alice.says("REQUEST", join([b"a", b"b", b"c"]), id=6, s=table.place, dl=5000, n=3)
    asked = _each(bob, "REQUEST-DELIVERY", "r", 3)
    first, second, third = sorted(asked)
    bob.says("REPLY", b"3", r=third)
    bob.says("REPLY", join([b"1", b"2"]), r=first, n=2)
    answers = _each(alice, "REPLY-DELIVERY", "ref", 3)
    _are(answers, {6: b"1", 7: b"2", 8: b"3"})
    bob.says("REPLY", b"again", r=second)
    bob.hears("ERROR", num=404, err="no_request")


@BATCHING.check("who does not know batches gets the requests one by one")
def _(table: Table) -> None:
    alice, bob = table.joins("batches"), serving(table.other_joins(), table.place)
    alice.says("REQUEST", join([b"a", b"b"]), id=6, s=table.place, dl=5000, n=2)
    for body in (b"a", b"b"):
        handle = bob.hears("REQUEST-DELIVERY", body).fields["r"]
        bob.says("REPLY", body.upper(), r=handle)
    _are(_each(alice, "REPLY-DELIVERY", "ref", 2), {6: b"A", 7: b"B"})


@BATCHING.check("what is wrong with a batch is told for each of it")
def _(table: Table) -> None:
    alice = table.joins("batches")
    two = join([b"a", b"b"])
    for err, num, body, more in (
        ("no_responders", 404, two, {}),
        ("bad_frame", 400, join([b"a"]), {}),
        ("bad_frame", 400, b"\xdd\xff\xff\xff\xff", {}),
        ("bad_request", 400, two, {"all": True}),
        ("bad_request", 400, two, {"idem": "x"}),
        ("bad_request", 400, two, {"stream": 1}),
    ):
        alice.says("REQUEST", body, id=6, s=table.place, dl=5000, n=2, **more)
        alice.hears("ERROR", num=num, err=err, ref=6)
        alice.hears("ERROR", num=num, err=err, ref=7)


@BATCHING.check("one request of a batch may be cancelled")
def _(table: Table) -> None:
    alice = table.joins("batches")
    bob = serving(table.other_joins("batches", "streams"), table.place)
    alice.says("REQUEST", join([b"a", b"b"]), id=6, s=table.place, dl=5000, n=2)
    first, second = sorted(_each(bob, "REQUEST-DELIVERY", "r", 2))
    alice.says("CANCEL", ref=6)
    bob.hears("CANCEL-DELIVERY", r=first)
    bob.says("REPLY", b"2", r=second)
    alice.hears("REPLY-DELIVERY", b"2", ref=7)
    alice.hears_no_more()
