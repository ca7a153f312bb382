"""Requests, replies, services, streams (section 9)."""

from __future__ import annotations

from bus.conformance.checks import Checks
from bus.conformance.results import Unexpected
from bus.conformance.table import Peer, Table

ASKING = Checks()


def serving(peer: Peer, pattern: str, **fields: object) -> Peer:
    """Serve and hear the OK."""
    peer.says("SERVE", id=1, s=pattern, **fields)
    peer.hears("OK", ref=1)
    return peer


@ASKING.check("a request reaches who serves it, and the reply who asked; a handle works once")
def _(table: Table) -> None:
    alice, bob = table.joins(), serving(table.other_joins(), f"{table.place}.*")
    alice.says("REQUEST", b"utc", id=6, s=f"{table.place}.now", dl=5000)
    request = bob.hears("REQUEST-DELIVERY", b"utc", s=f"{table.place}.now", from_=alice.key)
    if not 0 < request.fields["dl"] <= 5000 or request.fields.get("direct", False):
        raise Unexpected("dl of at most 5000, direct absent or false", str(request))
    bob.says("REPLY", b"12:00", r=request.fields["r"])
    alice.hears("REPLY-DELIVERY", b"12:00", ref=6, from_=bob.key)
    bob.says("REPLY", b"12:01", r=request.fields["r"])
    if "ref" in bob.hears("ERROR", num=404, err="no_request").fields:
        raise Unexpected("an ERROR without ref", "one with ref")
    alice.hears_no_more()


@ASKING.check("nobody else can answer a request")
def _(table: Table) -> None:
    alice, bob, eve = table.joins(), serving(table.other_joins(), table.place), table.other_joins()
    alice.says("REQUEST", b"", id=6, s=table.place, dl=5000)
    handle = bob.hears("REQUEST-DELIVERY").fields["r"]
    eve.says("REPLY", b"forged", r=handle)
    eve.hears("ERROR", num=404, err="no_request")
    bob.says("REPLY", b"mine", r=handle)
    alice.hears("REPLY-DELIVERY", b"mine", ref=6)


@ASKING.check("a request to a key reaches it, marked as direct")
def _(table: Table) -> None:
    alice, bob = table.joins(), table.other_joins()
    alice.says("REQUEST", b"", id=6, s=table.place, dl=5000, to=bob.key)
    handle = bob.hears("REQUEST-DELIVERY", direct=True, from_=alice.key).fields["r"]
    bob.says("REPLY", b"here", r=handle)
    alice.hears("REPLY-DELIVERY", b"here", ref=6, from_=bob.key)


@ASKING.check("a refusal travels with number, name and text")
def _(table: Table) -> None:
    alice, bob = table.joins(), serving(table.other_joins(), table.place)
    alice.says("REQUEST", b"", id=6, s=table.place, dl=5000)
    handle = bob.hears("REQUEST-DELIVERY").fields["r"]
    bob.says("REPLY", r=handle, err="conflict", msg="being set", num=409)
    alice.hears("REPLY-DELIVERY", ref=6, err="conflict", msg="being set", num=409)


@ASKING.check("a request that nobody can answer fails at once")
def _(table: Table) -> None:
    alice = table.joins()
    alice.says("REQUEST", b"", id=6, s=table.place, dl=86_400_000)
    alice.hears("ERROR", num=404, err="no_responders", ref=6)
    alice.says("REQUEST", b"", id=7, s=table.place, dl=86_400_000, to="0" * 40)
    alice.hears("ERROR", num=404, err="not_present", ref=7)


@ASKING.check("a deadline ends a request, and a late reply meets nothing")
def _(table: Table) -> None:
    alice, bob = table.joins(), serving(table.other_joins(), table.place)
    alice.says("REQUEST", b"", id=6, s=table.place, dl=50)
    handle = bob.hears("REQUEST-DELIVERY").fields["r"]
    alice.hears("ERROR", num=408, err="deadline", ref=6)
    bob.says("REPLY", b"late", r=handle)
    bob.hears("ERROR", num=404, err="no_request")


@ASKING.check("an answerer that leaves fails its requests at once")
def _(table: Table) -> None:
    alice, bob = table.joins(), serving(table.other_joins(), table.place)
    alice.says("REQUEST", b"", id=6, s=table.place, dl=60_000)
    bob.hears("REQUEST-DELIVERY")
    bob.says("BYE")
    alice.hears("ERROR", num=404, err="not_present", ref=6)


@ASKING.check("after UNSERVE nobody is asked any more")
def _(table: Table) -> None:
    bob = serving(table.other_joins(), table.place)
    bob.says("UNSERVE", id=2, s=table.place)
    bob.hears("OK", ref=2)
    alice = table.joins()
    alice.says("REQUEST", b"", id=6, s=table.place, dl=5000)
    alice.hears("ERROR", num=404, err="no_responders", ref=6)


@ASKING.check("fields of REQUEST that exclude each other are refused")
def _(table: Table) -> None:
    alice = table.joins()
    alice.says("REQUEST", b"", id=6, s=table.place, dl=5000, to=alice.key, all=True)
    alice.hears("ERROR", num=400, ref=6)
    alice.says("REQUEST", b"", id=7, s=table.place, dl=5000, idem="again", all=True)
    alice.hears("ERROR", num=400, ref=7)
    alice.hears_no_more()


@ASKING.check(
    "a service's limit of requests in flight is kept; what waits goes to the first with room"
)
def _(table: Table) -> None:
    alice, bob = table.joins(), serving(table.other_joins(), table.place, inflight=1)
    for ref in (6, 7):
        alice.says("REQUEST", b"%d" % ref, id=ref, s=table.place, dl=20_000)
    first = bob.hears("REQUEST-DELIVERY", b"6").fields["r"]
    bob.hears_no_more()
    bob.says("REPLY", b"done", r=first)
    second = bob.hears("REQUEST-DELIVERY", b"7").fields
    if not second["dl"] <= 20_000:
        raise Unexpected("dl is what is left", repr(second["dl"]))
    alice.hears("REPLY-DELIVERY", b"done", ref=6)


@ASKING.check("everybody who serves is asked, and the last word is the broker's")
def _(table: Table) -> None:
    alice, bob, eve = table.joins(), table.other_joins(), table.other_joins()
    serving(bob, f"{table.place}.*")
    serving(eve, f"{table.place}.>")
    alice.says("REQUEST", b"who", id=6, s=f"{table.place}.who", dl=20_000, all=True)
    for peer, answer in ((bob, b"bob"), (eve, b"eve")):
        peer.says("REPLY", answer, r=peer.hears("REQUEST-DELIVERY", b"who").fields["r"])
        alice.hears("REPLY-DELIVERY", answer, ref=6, from_=peer.key, more=True)
    last = alice.hears("REPLY-DELIVERY", b"", ref=6, from_=table.address.key)
    if last.fields.get("more"):
        raise Unexpected("more is false in the last", str(last))
    alice.says("REQUEST", b"who", id=7, s=table.place, dl=20_000, all=True)
    alice.hears("ERROR", num=404, err="no_responders", ref=7)


@ASKING.check("an idempotent request that is repeated gets the same reply without asking anybody")
def _(table: Table) -> None:
    alice, bob = table.joins(), serving(table.other_joins(), table.place)
    alice.says("REQUEST", b"set", id=6, s=table.place, dl=5000, idem=table.place[-8:])
    bob.says("REPLY", b"done", r=bob.hears("REQUEST-DELIVERY").fields["r"])
    alice.hears("REPLY-DELIVERY", b"done", ref=6, from_=bob.key)
    again = table.joins()
    again.says("REQUEST", b"set", id=7, s=table.place, dl=5000, idem=table.place[-8:])
    again.hears("REPLY-DELIVERY", b"done", ref=7, from_=bob.key)
    bob.hears_no_more()


def _streaming(table: Table, window: int) -> tuple[Peer, Peer, int]:
    """Requester, answerer and handle of a streamed reply under way; the request's id is 6."""
    alice, bob = table.joins("streams"), serving(table.other_joins("streams"), table.place)
    alice.says("REQUEST", b"", id=6, s=table.place, dl=20_000, stream=window)
    return alice, bob, bob.hears("REQUEST-DELIVERY", stream=window).fields["r"]


@ASKING.check("a streamed reply comes in chunks, as many as were granted, and ends")
def _(table: Table) -> None:
    alice, bob, handle = _streaming(table, 2)
    for chunk in (b"one", b"two"):
        bob.says("REPLY", chunk, r=handle, more=True)
        alice.hears("REPLY-DELIVERY", chunk, ref=6, more=True)
    alice.says("CREDIT", ref=6, m=1)
    bob.hears("CREDIT-DELIVERY", r=handle, m=1)
    bob.says("REPLY", b"three", r=handle, more=True)
    bob.says("REPLY", b"", r=handle)
    alice.hears("REPLY-DELIVERY", b"three", ref=6, more=True)
    if alice.hears("REPLY-DELIVERY", b"", ref=6).fields.get("more"):
        raise Unexpected("the last REPLY-DELIVERY comes without more", "one with it")


@ASKING.check("more chunks than were granted end the stream for both")
def _(table: Table) -> None:
    alice, bob, handle = _streaming(table, 1)
    for _ in range(2):
        bob.says("REPLY", b"chunk", r=handle, more=True)
    bob.hears("ERROR", num=429, err="credit")
    alice.hears("REPLY-DELIVERY", b"chunk", ref=6, more=True)
    alice.hears("ERROR", num=429, err="credit", ref=6)


@ASKING.check("a cancelled stream is told to the answerer, whose handle is void")
def _(table: Table) -> None:
    alice, bob, handle = _streaming(table, 4)
    alice.says("CANCEL", ref=6)
    bob.hears("CANCEL-DELIVERY", r=handle)
    bob.says("REPLY", b"late", r=handle)
    bob.hears("ERROR", num=404, err="no_request")
    alice.hears_no_more()


@ASKING.check("a chunk to who wants one reply is refused, and the request fails")
def _(table: Table) -> None:
    alice, bob = table.joins("streams"), serving(table.other_joins("streams"), table.place)
    alice.says("REQUEST", b"", id=6, s=table.place, dl=20_000)
    bob.says("REPLY", b"chunk", r=bob.hears("REQUEST-DELIVERY").fields["r"], more=True)
    bob.hears("ERROR", num=400, err="not_streamed")
    alice.hears("ERROR", num=400, err="not_streamed", ref=6)


@ASKING.check("services are told to who looks for them")
def _(table: Table) -> None:
    bob = serving(
        table.other_joins(), table.place, name="clock", ver="2.1", desc="time", inflight=8
    )
    found = [
        s
        for s in table.joins().asks_broker("$SYS.services")["services"]
        if s["subject"] == table.place
    ]
    wanted = {"name": "clock", "ver": "2.1", "desc": "time", "key": bob.key, "limit": 8}
    if len(found) != 1 or not wanted.items() <= found[0].items():
        raise Unexpected(repr(wanted), repr(found))
