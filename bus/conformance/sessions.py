"""Sessions: who is let in, how they open and end (sections 2 to 5 of the specification)."""

from __future__ import annotations

from bus import sockets
from bus.conformance.checks import Checks
from bus.conformance.results import Skipped, Unexpected
from bus.conformance.table import Table
from bus.identity import to_hex

SESSIONS = Checks()


@SESSIONS.check("a key that is not on the list is refused by the handshake")
def _(table: Table) -> None:
    stranger = table.dials(sockets.new_keypair())
    try:
        stranger.is_refused()
    except Unexpected as error:
        if error.came != "it succeeded":
            raise
        # Enrolment is open: then a stranger gets no session.
        stranger.says("HELLO")
        stranger.hears("ERROR", num=401, err="key_unknown")
        stranger.is_cut()


@SESSIONS.check("WELCOME tells the proved key, the limits and the capabilities of both sides")
def _(table: Table) -> None:
    peer = table.dials().hello(caps=["credit", "streams", "notices", "durable", "no-such-thing"])
    welcome = peer.welcome
    if welcome["key"] != peer.key:
        raise Unexpected(f"key {peer.key}", str(welcome["key"]))
    for name in ("session", "epoch", "hb", "time"):
        if not isinstance(welcome[name], int):
            raise Unexpected(f"{name} is an integer", repr(welcome[name]))
    for name in (
        "payload",
        "head",
        "batch",
        "subscriptions",
        "inflight",
        "queue_messages",
        "queue_bytes",
    ):
        if not isinstance(welcome["limits"][name], int):
            raise Unexpected(f"limits.{name} is an integer", repr(welcome["limits"][name]))
    if "no-such-thing" in welcome.get("caps", []):
        raise Unexpected("only capabilities that the broker knows", repr(welcome["caps"]))


@SESSIONS.check("a command before HELLO is refused with 425 and HELLO may follow")
def _(table: Table) -> None:
    peer = table.dials()
    peer.says("PING", t=1)
    peer.hears("ERROR", num=425, err="hello_first")
    peer.hello().hears_no_more()


@SESSIONS.check("a second HELLO is a conflict and changes nothing")
def _(table: Table) -> None:
    peer = table.joins()
    peer.says("HELLO", name="another")
    peer.hears("ERROR", num=409, err="conflict")
    peer.hears_no_more()


@SESSIONS.check("a routing id of another form is refused and cut")
def _(table: Table) -> None:
    for routing_id in (b"short", b"\x02" + bytes(16), b"\x01" + bytes(17)):
        peer = table.dials(routing_id=routing_id)
        peer.says("HELLO")
        peer.hears("ERROR", num=400, err="bad_routing_id")
        peer.is_cut()


@SESSIONS.check("PING is answered by PONG with its number and the broker's epoch")
def _(table: Table) -> None:
    peer = table.joins()
    peer.says("PING", t=2**63 - 1)
    peer.hears("PONG", t=2**63 - 1, epoch=peer.welcome["epoch"])


@SESSIONS.check("BYE is answered by GOODBYE 0 and the cut")
def _(table: Table) -> None:
    peer = table.joins()
    peer.says("BYE")
    peer.hears("GOODBYE", num=0)
    peer.is_cut()


@SESSIONS.check("a message of three frames is refused and cut")
def _(table: Table) -> None:
    peer = table.joins()
    peer.sends(b"SB\x01\x02\x80", b"", b"")
    peer.is_told_and_cut(400, "bad_frame")


@SESSIONS.check("a head over its limit is refused and cut")
def _(table: Table) -> None:
    peer = table.joins()
    filling = peer.welcome["limits"]["head"]
    peer.sends(b"SB\x01\x02\x81\xa1x\xc5" + filling.to_bytes(2) + bytes(filling))
    peer.is_told_and_cut(413, "too_large")


@SESSIONS.check("a body over its limit is refused and the session goes on")
def _(table: Table) -> None:
    peer = table.joins()
    body = bytes(peer.welcome["limits"]["payload"] + 1)
    peer.says("PUBLISH", body, id=5, s=table.place)
    peer.hears("ERROR", num=413, err="too_large", ref=5)
    peer.hears_no_more()


@SESSIONS.check("a will is published when the connection is lost")
def _(table: Table) -> None:
    heir = table.other_joins()
    heir.says("SUBSCRIBE", id=1, sid=1, s=f"{table.place}.will")
    heir.hears("OK", ref=1)
    peer = table.dials().hello(b"power cut", will=f"{table.place}.will")
    peer.hangs_up()
    heir.hears("DELIVERY", b"power cut", sid=1, s=f"{table.place}.will", from_=peer.key)


@SESSIONS.check("a will is published when a session breaks the protocol, and not after BYE")
def _(table: Table) -> None:
    heir = table.other_joins()
    heir.says("SUBSCRIBE", id=1, sid=1, s=f"{table.place}.will")
    heir.hears("OK", ref=1)
    polite = table.dials().hello(b"polite", will=f"{table.place}.will")
    polite.says("BYE")
    polite.hears("GOODBYE", num=0)
    rude = table.dials().hello(b"rude", will=f"{table.place}.will")
    rude.sends(b"SB\x01\x7f\x80")
    heir.hears("DELIVERY", b"rude", from_=rude.key)
    heir.hears_no_more()


@SESSIONS.check("a will to where its key may not publish is refused at HELLO")
def _(table: Table) -> None:
    peer = table.dials()
    peer.says("HELLO", b"", will="$SYS.presence.forged")
    peer.hears("ERROR", num=403, err="denied")
    peer.is_cut()


@SESSIONS.check("presence tells who comes and who goes")
def _(table: Table) -> None:
    watcher = table.joins()
    subject = f"$SYS.presence.{to_hex(table.other.public)}"
    watcher.says("SUBSCRIBE", id=1, sid=1, s=subject)
    if watcher.hears(ref=1).name == "ERROR":
        raise Skipped("this key may not subscribe to presence")
    peer = table.other_joins()
    if b"online" not in watcher.hears("DELIVERY", s=subject).body:
        raise Unexpected("state online", "another")
    peer.says("BYE", reason="tea")
    if b"tea" not in watcher.hears("DELIVERY", s=subject).body:
        raise Unexpected("the reason that BYE gave", "another")


@SESSIONS.check("the broker says who it is and who is there")
def _(table: Table) -> None:
    peer = table.joins()
    info = peer.asks_broker("$SYS.info")
    if info["key"] != table.address.key or info["epoch"] != peer.welcome["epoch"]:
        raise Unexpected(f"key {table.address.key}, epoch {peer.welcome['epoch']}", repr(info))
    there = peer.asks_broker("$SYS.sessions", {"key": peer.key})["sessions"]
    if peer.welcome["session"] not in [session["session"] for session in there]:
        raise Unexpected(f"session {peer.welcome['session']} among those of its key", repr(there))


@SESSIONS.check("sessions are listed page by page")
def _(table: Table) -> None:
    peers = [table.joins() for _ in range(2)]
    key, number = peers[0].key, peers[0].welcome["session"]
    first = peers[0].asks_broker("$SYS.sessions", {"key": key, "after": number - 1, "limit": 1})
    if [one["session"] for one in first["sessions"]] != [number] or first["left"] < 1:
        raise Unexpected(f"session {number} alone, and more left", repr(first))
    rest = peers[0].asks_broker("$SYS.sessions", {"key": key, "after": number})
    if peers[1].welcome["session"] not in [one["session"] for one in rest["sessions"]]:
        raise Unexpected(f"session {peers[1].welcome['session']} on the next page", repr(rest))
    if rest["left"]:
        raise Unexpected("nothing left after the last page", repr(rest))


@SESSIONS.check("services are listed page by page")
def _(table: Table) -> None:
    peer = table.joins()
    wanted = {f"{table.place}.{number}" for number in range(3)}
    for number, subject in enumerate(sorted(wanted), 1):
        peer.says("SERVE", id=number, s=subject)
        peer.hears("OK", ref=number)
    told: list[str] = []
    query: dict[str, object] = {"limit": 1}
    while True:
        page = peer.asks_broker("$SYS.services", query)
        if len(page["services"]) > 1:
            raise Unexpected("one service, as asked for", repr(page))
        told += [service["subject"] for service in page["services"]]
        if not page.get("next"):
            break
        query["after"] = page["next"]
    if not wanted <= set(told) or len(told) != len(set(told)):
        raise Unexpected(f"each of {sorted(wanted)} on one page", repr(told))


@SESSIONS.check("a kicked session hears why, is cut, and is among the last that ended")
def _(table: Table) -> None:
    operator, peer = table.joins(), table.other_joins()
    number = peer.welcome["session"]
    told = operator.asks_broker("$SYS.kick", {"session": number, "reason": "too loud"})
    if told["count"] != 1:
        raise Unexpected("count 1", repr(told))
    peer.hears("GOODBYE", num=403, reason="kicked: too loud")
    peer.is_cut()
    closed = operator.asks_broker("$SYS.closed")["sessions"]
    if (403, number) not in [(one["num"], one["session"]) for one in closed]:
        raise Unexpected(f"session {number} with 403", repr(closed[:3]))
