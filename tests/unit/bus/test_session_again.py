"""What a client sends again by itself, and what it does not."""

import pytest

from bus import errors, wire
from bus.waiting import Postponed
from tests.support.line import KEY, LIMITS, WELCOME, Line, connected, settled

LEFT = ("not_present", "bob left before it replied")
NOBODY = ("no_responders", "nobody serves app.clock")


def asks_twice(line: Line, timeout: float = 5.0, to: str | None = None) -> int:
    """Ask what may be asked twice."""
    return line.session.request("app.clock", b"?", to, timeout, line.now, idem="token")


def refuses(line: Line, ref: int, num: int, told: tuple[str, str]) -> object:
    return line.hears(wire.Error(num, *told, ref=ref))


def test_an_idempotent_request_is_sent_again_on_the_next_connection_with_the_time_left() -> None:
    line = connected()
    ref = asks_twice(line)
    assert line.sends() == [wire.Request(ref, "app.clock", 5000, idem="token")]
    assert line.breaks() == []
    line.passes(2.0)
    line.session.opened(line.now)
    line.sends()
    line.hears(wire.Welcome(2, 2, KEY, [], 10_000, LIMITS, "test", 0))
    assert line.sends_bodies() == [(wire.Request(ref, "app.clock", 3000, idem="token"), b"?")]
    assert settled(line.hears(wire.ReplyDelivery(ref, KEY), b"12:00")).body == b"12:00"


def test_one_that_had_not_left_is_sent_once() -> None:
    line = Line()
    ref = asks_twice(line)
    assert line.opens() == [wire.Request(ref, "app.clock", 5000, idem="token")]


def test_its_deadline_ends_it_while_there_is_no_connection() -> None:
    line = connected()
    ref = asks_twice(line)
    line.sends()
    line.breaks()
    [late] = line.passes(5.6)
    assert (late.id, type(late.error)) == (ref, errors.DeadlineExceeded)
    assert line.opens() == []


def test_when_its_worker_leaves_it_is_asked_again_after_a_pause() -> None:
    line = connected()
    ref = asks_twice(line)
    line.sends()
    postponed = refuses(line, ref, 404, LEFT)
    assert isinstance(postponed, Postponed)
    assert line.session.next_timer(line.now) == pytest.approx(postponed.seconds)
    assert line.sends() == []
    assert line.passes(postponed.seconds) == []
    [again] = line.sends()
    assert isinstance(again, wire.Request)
    assert (again.id, again.idem) == (ref, "token")
    assert 4900 <= again.dl < 5000


def test_that_nobody_serves_it_is_an_answer_unless_somebody_did() -> None:
    line = connected()
    ref = asks_twice(line)
    line.sends()
    assert isinstance(settled(refuses(line, ref, 404, NOBODY)).error, errors.NotPresent)
    ref = asks_twice(line)
    line.sends()
    line.breaks()
    line.opens()  # before those who serve it are back
    pauses = []
    for _ in range(8):
        postponed = refuses(line, ref, 404, NOBODY)
        assert isinstance(postponed, Postponed)
        pauses.append(postponed.seconds)
        line.passes(postponed.seconds)
        assert len(line.sends()) == 1
    assert pauses == sorted(pauses)
    assert pauses[-1] == 1.0


def test_a_participant_that_is_not_there_is_an_answer() -> None:
    line = connected()
    ref = asks_twice(line, to=KEY)
    line.sends()
    told = refuses(line, ref, 404, ("not_present", "not on the bus"))
    assert isinstance(settled(told).error, errors.NotPresent)


def test_a_broker_that_drains_leaves_it_to_its_successor() -> None:
    line = connected()
    plain, ref = line.asks(), asks_twice(line)
    line.sends()
    draining = ("draining", "the broker is stopping")
    assert isinstance(settled(refuses(line, plain, 503, draining)).error, errors.Unreachable)
    assert refuses(line, ref, 503, draining) is None
    assert line.passes(1.0) == []
    assert line.sends() == []
    assert line.breaks() == []
    [again] = line.opens()
    assert isinstance(again, wire.Request)
    assert again.id == ref


def test_other_errors_end_it() -> None:
    line = connected()
    ref = asks_twice(line)
    line.sends()
    refused = settled(refuses(line, ref, 403, ("denied", "request app.clock: not allowed")))
    assert isinstance(refused.error, errors.NotAuthorised)


def test_given_up_it_is_not_sent_again() -> None:
    line = connected()
    ref = asks_twice(line)
    line.sends()
    line.session.forget(ref)
    line.breaks()
    assert line.opens() == []


def test_a_message_with_an_id_is_stored_again_and_one_without_is_not() -> None:
    line = connected()
    unknown = line.session.durable.store("app.x", b"1", "", 5.0, line.now)
    known = line.session.durable.store("app.x", b"2", "order-7", 5.0, line.now)
    publish = wire.Publish("app.x", id=known, mid="order-7")
    assert line.sends() == [wire.Publish("app.x", id=unknown), publish]
    [failed] = line.breaks()
    assert (failed.id, str(failed.error)) == (
        unknown, "store app.x: the connection was lost, result unknown",
    )  # fmt: skip
    line.session.opened(line.now)
    line.sends()
    line.hears(WELCOME)
    assert line.sends_bodies() == [(publish, b"2")]
    assert settled(line.hears(wire.Ok(known, seq=9, dup=True))).ok == wire.Ok(known, 9, dup=True)


@pytest.mark.parametrize("verb", ["request", "signal", "publish"])
def test_what_may_not_happen_twice_is_not_sent_again(verb: str) -> None:
    line = connected()
    acts = {
        "request": line.asks,
        "signal": lambda: line.session.signal(KEY, "app.x", b"", 5.0, line.now),
        "publish": lambda: line.session.publish("app.x", b""),
    }
    acts[verb]()
    assert len(line.sends()) == 1
    line.breaks()
    assert line.opens() == []
