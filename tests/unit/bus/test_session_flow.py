"""Credit, wills, what the broker takes away, and what it says that is new to us."""

import msgspec
import pytest

from bus import errors, wire
from bus.errors import LocalProtocolError
from bus.greeting import CREDIT, MAX_WILL
from bus.waiting import Unknown, Withdrawn
from tests.support.line import KEY, WELCOME, Line, connected, settled


def delivered(line: Line, n: int, size: int) -> None:
    line.hears(wire.Delivery(1, "app.x", KEY, n), bytes(size))


# Credit.


def test_credit_is_given_back_when_half_of_the_messages_were_taken() -> None:
    line = connected()
    half, batch = CREDIT.m // 2, 1024
    for _ in range(half // batch - 1):
        delivered(line, batch, 0)
    assert line.sends() == []
    delivered(line, batch, 0)
    assert line.sends() == [wire.Credit(m=half)]


def test_credit_is_given_back_when_half_of_the_bytes_were_taken() -> None:
    line = connected()
    for _ in range(7):
        delivered(line, 1, 1 << 20)
    assert line.sends() == []
    delivered(line, 1, 1 << 20)
    assert line.sends() == [wire.Credit(m=8, b=8 << 20)]
    delivered(line, 1, 1 << 20)
    assert line.sends() == []


def test_credit_starts_anew_with_a_connection() -> None:
    line = connected()
    for _ in range(7):
        delivered(line, 1, 1 << 20)
    line.breaks()
    line.opens()
    delivered(line, 1, 1 << 20)
    assert line.sends() == []


def test_a_broker_that_does_not_know_credit_is_given_none() -> None:
    line = Line()
    line.session.opened(line.now)
    line.sends()
    line.hears(msgspec.structs.replace(WELCOME, caps=[]))
    for _ in range(20):
        delivered(line, 1, 1 << 20)
    assert line.sends() == []


def test_a_groups_member_gives_back_its_window_by_sid() -> None:
    line = connected()
    ref, sid = line.session.standing.subscribe("app.x", "drop_old", "workers", 8)
    assert line.sends() == [wire.Subscribe(ref, sid, "app.x", "drop_old", "workers", 8)]
    line.session.grant(4, sid=sid)
    assert line.sends() == [wire.Credit(sid=sid, m=4)]
    line.breaks()
    line.session.grant(4, sid=sid)  # of messages that the next connection knows nothing of
    again = wire.Subscribe(ref, sid, "app.x", "drop_old", "workers", 8)
    assert line.opens() == [again, wire.Ping(1)]


# Wills.


def test_a_will_is_in_every_hello() -> None:
    line = Line(will=("app.gone", b"farewell"))
    for _ in range(2):
        line.session.opened(line.now)
        [(hello, body)] = line.sends_bodies()
        assert isinstance(hello, wire.Hello)
        assert (hello.will, body) == ("app.gone", b"farewell")
        line.breaks()


@pytest.mark.parametrize(
    ("will", "problem"),
    [
        (("app.*", b""), "the will's subject is not one"),
        (("app.x", bytes(MAX_WILL + 1)), "a will of 65537 bytes, at most 65536"),
    ],
)
def test_a_will_that_cannot_be_is_refused_here(will: tuple[str, bytes], problem: str) -> None:
    with pytest.raises(LocalProtocolError, match=problem):
        Line(will=will)


def test_why_hello_was_refused_is_kept() -> None:
    line = Line(will=("mesh.x", b""))
    line.session.opened(line.now)
    line.sends()
    line.hears(wire.Error(403, "denied", "publish mesh.x: not allowed to role app"))
    assert isinstance(line.session.refusal, errors.NotAuthorised)
    line.breaks()
    line.opens()
    assert line.session.refusal is None


# What the broker takes away.


def test_a_subscription_that_was_ended_is_told_and_not_said_again() -> None:
    line = connected()
    _, sid = line.session.standing.subscribe("app.>", "drop_old")
    line.sends()
    ended = line.hears(wire.Ended(403, "app.>", sid, "the rights of this key have changed"))
    assert isinstance(ended, Withdrawn)
    assert (ended.sid, type(ended.error)) == (sid, errors.NotAuthorised)
    line.breaks()
    assert line.opens() == []


def test_a_service_that_was_ended_is_told_and_not_said_again() -> None:
    line = connected()
    line.session.standing.serve("app.clock")
    line.sends()
    ended = line.hears(wire.Ended(403, "app.clock"))
    assert isinstance(ended, Withdrawn)
    assert (ended.sid, ended.subject) == (None, "app.clock")
    line.breaks()
    assert line.opens() == []


def test_a_subscription_refused_on_a_later_connection_is_ended() -> None:
    line = connected()
    ref, sid = line.session.standing.subscribe("app.>", "drop_old")
    line.sends()
    line.hears(wire.Ok(ref))
    line.breaks()
    assert len(line.opens()) == 2
    ended = line.hears(wire.Error(403, "denied", "subscribe app.>: not allowed", ref))
    assert ended == Withdrawn("app.>", sid, ended.error)  # type: ignore[union-attr]
    line.breaks()
    assert line.opens() == []


def test_a_revoked_key_fails_what_was_under_way_and_what_waits() -> None:
    line = connected()
    gone = line.asks()
    line.sends()
    waits = line.asks()
    line.hears(wire.Goodbye(401, "this key is no longer allowed"))
    [failed] = line.breaks()
    assert (failed.id, type(failed.error)) == (gone, errors.NotAuthorised)
    [refused] = line.session.ledger.give_up("the broker does not allow this key")
    assert (refused.id, type(refused.error)) == (waits, errors.NotAuthorised)
    assert str(refused.error) == "request app.clock: the broker does not allow this key"
    assert line.opens() == []


def test_what_is_no_longer_served_is_not_said_again() -> None:
    line = connected()
    serve = line.session.standing.serve("app.clock")
    line.sends()
    line.hears(wire.Ok(serve))
    ref = line.session.standing.unserve("app.clock", 5.0, line.now)
    assert line.sends() == [wire.Unserve(ref, "app.clock")]  # type: ignore[arg-type]
    assert settled(line.hears(wire.Ok(ref))).error is None  # type: ignore[arg-type]
    line.breaks()
    assert line.opens() == []
    assert line.session.standing.unserve("app.clock", 5.0, line.now) is None


# What is new to us.


@pytest.mark.parametrize("code", [0x8F, 0x9B, 0xFF, 0x10])
def test_an_unknown_command_is_ignored_whatever_is_in_it(code: int) -> None:
    line = connected()
    for fields in (b"\x80", b"\x81\xa1x\x01", b"", b"\xc1"):
        head = b"SB\x01" + bytes([code]) + fields
        assert line.session.receive(head, b"body", line.now) == Unknown(code)


def test_an_unknown_command_over_the_limit_of_a_head_is_none() -> None:
    line = connected()
    with pytest.raises(errors.RemoteProtocolError, match="at most"):
        line.session.receive(b"SB\x01\xff" + bytes(wire.MAX_HEAD), b"", line.now)


def test_a_notice_is_passed_on() -> None:
    line = connected()
    notice = wire.Notice(2000, "restart")
    assert line.hears(notice) == notice


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": "n" * 65}, r"serve app\.x: .*name"),
        ({"ver": "v" * 33}, r"serve app\.x: .*ver"),
        ({"desc": "d" * 256}, r"serve app\.x: .*desc"),
        ({"inflight": 1025}, r"serve app\.x: .*inflight"),
    ],
)
def test_what_would_cost_the_connection_is_refused_here(
    fields: dict[str, object], problem: str
) -> None:
    line = connected()
    with pytest.raises(LocalProtocolError, match=problem):
        line.session.standing.serve("app.x", **fields)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match=r"subscribe app\.x: .*window"):
        line.session.standing.subscribe("app.x", "drop_old", "group", wire.MAX_WINDOW + 1)
    assert line.sends() == []
    line.breaks()
    assert line.opens() == []
