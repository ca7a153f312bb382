"""A client's side of durable topics: records until the OK, and what goes back unseen."""

import pytest

from bus import errors, wire
from bus.errors import LocalProtocolError
from tests.support.line import KEY, Line, connected, settled


def pulls(line: Line, n: int = 2, wait: int = 1000) -> int:
    return line.session.durable.pull(wire.Pull(0, "orders", "billing", n, wait), 6.0, line.now)


def record(ref: int, seq: int) -> wire.Record:
    return wire.Record(ref, seq, "app.orders", KEY, 1_700_000_000_000, 1)


def test_a_pull_ends_with_the_records_before_its_ok() -> None:
    line = connected()
    ref = pulls(line)
    assert line.sends() == [wire.Pull(ref, "orders", "billing", 2, 1000)]
    assert line.hears(record(ref, 1), b"a") is None
    assert line.hears(record(ref, 2), b"b") is None
    done = settled(line.hears(wire.Ok(ref, seq=3, left=0)))
    assert done.records == [(record(ref, 1), b"a"), (record(ref, 2), b"b")]
    assert done.ok == wire.Ok(ref, 3, left=0)


def test_a_read_says_where_it_wants_to_begin() -> None:
    line = connected()
    ref = line.session.durable.read(wire.Read(0, "orders", seq=7, n=10), 5.0, line.now)
    assert line.sends() == [wire.Read(ref, "orders", seq=7, n=10)]
    assert settled(line.hears(wire.Ok(ref, seq=7, left=0))).records == ()


def test_records_are_settled_with_an_ok() -> None:
    line = connected()
    settle = wire.Settle("orders", "billing", [1, 2], "nak", 500)
    ref = line.session.durable.settle(settle, 5.0, line.now)
    assert line.sends() == [wire.Settle("orders", "billing", [1, 2], "nak", 500, ref)]
    assert settled(line.hears(wire.Ok(ref))).error is None


def test_what_a_pull_brings_that_nobody_waits_for_goes_back_at_once() -> None:
    line = connected()
    ref = pulls(line)
    line.sends()
    line.hears(record(ref, 1), b"a")
    line.session.forget(ref)
    line.hears(record(ref, 2), b"b")
    assert line.sends() == []
    assert line.hears(wire.Ok(ref, seq=3, left=0)) is None
    assert line.sends() == [wire.Settle("orders", "billing", [1, 2], "nak")]


def test_a_pull_given_up_that_brings_nothing_says_nothing() -> None:
    line = connected()
    ref = pulls(line)
    line.sends()
    line.session.forget(ref)
    assert line.hears(wire.Ok(ref, seq=1, left=0)) is None
    assert line.sends() == []
    gone = pulls(line)
    line.sends()
    line.session.forget(gone)
    assert line.breaks() == []
    assert line.passes(10) == []


def test_records_that_nobody_asked_for_are_ignored() -> None:
    line = connected()
    asked = line.asks()
    line.sends()
    assert line.hears(record(999, 1), b"x") is None
    assert line.hears(record(asked, 1), b"x") is None
    assert settled(line.hears(wire.ReplyDelivery(asked, KEY))).records == ()


@pytest.mark.parametrize(
    ("num", "err", "kind"),
    [
        (404, "no_topic", errors.NoTopic), (404, "no_consumer", errors.NoTopic),
        (507, "store_full", errors.StoreFull), (403, "denied", errors.NotAuthorised),
        (500, "damaged", errors.RemoteProtocolError), (503, "draining", errors.Unreachable),
    ],
)  # fmt: skip
def test_an_error_of_a_topic_is_an_exception_by_name(
    num: int, err: str, kind: type[errors.BusError]
) -> None:
    line = connected()
    ref = line.session.durable.store("app.x", b"", "", 5.0, line.now)
    line.sends()
    assert type(settled(line.hears(wire.Error(num, err, "because", ref))).error) is kind


@pytest.mark.parametrize(
    "pull",
    [
        wire.Pull(0, "", "c"), wire.Pull(0, "t", "c" * 65), wire.Pull(0, "t", "c", 257),
        wire.Pull(0, "t", "c", 0),
    ],
)  # fmt: skip
def test_a_pull_that_would_cost_the_connection_is_refused_here(pull: wire.Pull) -> None:
    line = connected()
    with pytest.raises(LocalProtocolError, match="pull"):
        line.session.durable.pull(pull, 5.0, line.now)
    with pytest.raises(LocalProtocolError, match="store"):
        line.session.durable.store("app.x", b"", "m" * 65, 5.0, line.now)
    with pytest.raises(LocalProtocolError, match="ack"):
        line.session.durable.settle(wire.Settle("t", "c", []), 5.0, line.now)
    assert line.sends() == []
