"""Requests with more than one reply: streams and what everybody answers."""

import pytest

from bus import errors, wire
from bus.errors import LocalProtocolError
from bus.waiting import Part, Settled
from tests.support.line import KEY, Line, connected, settled

OTHER = "o" * 40


def streams(line: Line, window: int = 4, timeout: float = 5.0) -> int:
    return line.session.stream("app.log", b"", None, timeout, window, line.now)


def gathers(line: Line, timeout: float = 2.0) -> int:
    return line.session.gather("app.who", b"", timeout, line.now)


def test_a_stream_is_chunks_and_an_end() -> None:
    line = connected()
    ref = streams(line)
    assert line.sends() == [wire.Request(ref, "app.log", 5000, stream=4)]
    chunk = wire.ReplyDelivery(ref, KEY, more=True)
    assert line.hears(chunk, b"1") == Part(ref, KEY, b"1")
    assert line.hears(chunk, b"2") == Part(ref, KEY, b"2")
    assert line.hears(wire.ReplyDelivery(ref, KEY)) == Settled(ref)
    assert line.hears(chunk, b"late") is None


def test_the_reader_grants_more_chunks() -> None:
    line = connected()
    ref = streams(line)
    line.sends()
    line.session.grant(2, ref=ref)
    assert line.sends() == [wire.Credit(ref=ref, m=2)]


def test_a_stream_that_is_left_is_cancelled_once() -> None:
    line = connected()
    ref = streams(line)
    line.sends()
    line.session.cancel(ref)
    assert line.sends() == [wire.Cancel(ref)]
    assert line.hears(wire.ReplyDelivery(ref, KEY, more=True), b"late") is None
    line.session.cancel(ref)
    assert line.sends() == []


def test_a_stream_that_has_ended_is_not_cancelled() -> None:
    line = connected()
    ref = streams(line)
    line.sends()
    line.hears(wire.ReplyDelivery(ref, KEY))
    line.session.cancel(ref)
    assert line.sends() == []


def test_a_stream_fails_with_the_answerers_error_the_brokers_or_the_connections() -> None:
    line = connected()
    refs = [streams(line) for _ in range(3)]
    line.sends()
    refused = settled(line.hears(wire.ReplyDelivery(refs[0], KEY, "conflict", "busy", 409)))
    assert isinstance(refused.error, errors.Refused)
    over = wire.Error(429, "credit", "more chunks than were granted", refs[1])
    assert isinstance(settled(line.hears(over)).error, errors.RemoteProtocolError)
    [lost] = line.breaks()
    assert (lost.id, type(lost.error)) == (refs[2], errors.Unreachable)


def test_a_stream_ends_at_its_deadline() -> None:
    line = connected()
    ref = streams(line, timeout=1.0)
    line.sends()
    line.hears(wire.ReplyDelivery(ref, KEY, more=True), b"1")
    [late] = line.passes(1.6)
    assert (late.id, type(late.error)) == (ref, errors.DeadlineExceeded)


@pytest.mark.parametrize("window", [65, -1])
def test_a_window_that_the_broker_would_not_take_is_refused_here(window: int) -> None:
    line = connected()
    with pytest.raises(LocalProtocolError, match=r"stream app.log: .*stream"):
        streams(line, window)
    assert line.sends() == []


def test_everybodys_answers_come_with_who_gave_them_and_end() -> None:
    line = connected()
    ref = gathers(line)
    assert line.sends() == [wire.Request(ref, "app.who", 2000, all=True)]
    assert line.hears(wire.ReplyDelivery(ref, KEY, more=True), b"a") == Part(ref, KEY, b"a")
    refused = line.hears(wire.ReplyDelivery(ref, OTHER, "busy", "later", 429, more=True))
    assert isinstance(refused, Part)
    assert isinstance(refused.error, errors.Refused)
    assert refused.sender == OTHER
    assert line.hears(wire.ReplyDelivery(ref, KEY)) == Settled(ref)


def test_a_chunk_for_a_request_with_one_reply_is_ignored() -> None:
    line = connected()
    ref = line.asks()
    line.sends()
    assert line.hears(wire.ReplyDelivery(ref, KEY, more=True), b"chunk") is None
    assert settled(line.hears(wire.ReplyDelivery(ref, KEY), b"whole")).body == b"whole"


def test_chunks_are_sent_until_one_is_too_large() -> None:
    line = connected()
    assert line.session.reply(7, b"1", more=True)
    assert not line.session.reply(7, bytes((1 << 20) + 1), more=True)
    chunk, refusal = line.sends()
    assert chunk == wire.Reply(7, more=True)
    assert isinstance(refusal, wire.Reply)
    assert (refusal.err, refusal.more) == ("too_large", False)
