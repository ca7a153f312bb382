"""The client's side of the protocol: what waits, what fails, what is said again."""

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bus import errors, wire
from bus.errors import RemoteProtocolError
from bus.greeting import CREDIT
from bus.routing.sessions import LIMITS
from bus.sending import BATCH_ROOM, BODY_COST, MAX_WAITING
from bus.waiting import Settled
from tests.support.line import KEY, WELCOME, Line, connected, settled


def test_nothing_but_hello_leaves_before_welcome() -> None:
    line = Line()
    ref = line.asks()
    line.session.publish("app.x", b"1")
    line.session.opened(line.now)
    [hello] = line.sends()
    assert isinstance(hello, wire.Hello)
    assert hello == wire.Hello("alice", "python", hello.ver, list(wire.CAPS), CREDIT)
    line.hears(WELCOME)
    assert line.sends() == [wire.Request(ref, "app.clock", 5000), wire.Publish("app.x")]


def test_a_reply_settles_its_request() -> None:
    line = connected()
    ref = line.asks()
    line.sends()
    assert line.hears(wire.ReplyDelivery(ref, KEY), b"12:00") == Settled(ref, b"12:00")
    assert line.hears(wire.ReplyDelivery(ref, KEY), b"again") is None


@pytest.mark.parametrize(
    ("num", "err", "kind"),
    [(403, "denied", errors.NotAuthorised), (404, "no_responders", errors.NotPresent),
     (408, "deadline", errors.DeadlineExceeded), (413, "too_large", errors.RemoteProtocolError)],
)  # fmt: skip
def test_an_error_of_the_broker_is_an_exception_by_number(
    num: int, err: str, kind: type[errors.BusError]
) -> None:
    line = connected()
    ref = line.asks()
    line.sends()
    error = settled(line.hears(wire.Error(num, err, "because", ref))).error
    assert type(error) is kind
    assert str(error) == "because"


def test_a_refusal_keeps_number_name_and_text() -> None:
    line = connected()
    ref = line.asks()
    line.sends()
    error = settled(line.hears(wire.ReplyDelivery(ref, KEY, "conflict", "busy", 409))).error
    assert isinstance(error, errors.Refused)
    assert (error.code, error.err, str(error)) == (409, "conflict", "busy")


def test_what_had_left_fails_when_the_connection_is_lost_and_what_had_not_waits() -> None:
    line = connected()
    gone = line.asks()
    line.sends()
    kept = line.asks()
    [failed] = line.breaks()
    assert failed.id == gone
    assert isinstance(failed.error, errors.Unreachable)
    assert str(failed.error) == "request app.clock: the connection was lost, result unknown"
    assert line.opens() == [wire.Request(kept, "app.clock", 5000)]
    assert settled(line.hears(wire.ReplyDelivery(kept, KEY))).error is None


def test_subscriptions_and_services_are_said_again_before_anything_else() -> None:
    line = connected()
    ref, sid = line.session.standing.subscribe("app.>", "drop_new")
    serve = line.session.standing.serve("app.clock")
    said = line.sends()
    assert said == [wire.Subscribe(ref, sid, "app.>", "drop_new"), wire.Serve(serve, "app.clock")]
    assert settled(line.hears(wire.Ok(ref))).id == ref
    assert settled(line.hears(wire.Ok(serve))).id == serve
    line.session.publish("app.x", b"while away")
    assert line.breaks() == []
    assert line.opens() == [*said, wire.Ping(1), wire.Publish("app.x")]
    assert not line.session.restored
    line.hears(wire.Pong(0, 1))
    assert not line.session.restored
    line.hears(wire.Pong(1, 1))
    assert line.session.restored
    assert line.hears(wire.Ok(ref)) is None


def test_what_was_withdrawn_is_not_said_again() -> None:
    line = connected()
    _, sid = line.session.standing.subscribe("app.>", "drop_old")
    line.session.standing.serve("app.clock")
    line.sends()
    line.session.standing.unsubscribe(sid)
    line.session.standing.withdraw("app.clock")
    assert [type(c) for c in line.sends()] == [wire.Unsubscribe]
    line.breaks()
    assert line.opens() == []


def test_a_subscription_made_while_away_waits_for_the_connection() -> None:
    line = Line()
    ref, sid = line.session.standing.subscribe("app.>", "drop_old")
    assert line.opens() == [wire.Subscribe(ref, sid, "app.>"), wire.Ping(1)]
    assert settled(line.hears(wire.Ok(ref))).error is None


def test_a_request_that_was_given_up_while_away_is_not_sent_later() -> None:
    line = Line()
    timed_out, forgotten = line.asks(timeout=1.0), line.asks()
    [late] = line.passes(2.0)
    assert (late.id, type(late.error)) == (timed_out, errors.DeadlineExceeded)
    line.session.forget(forgotten)
    assert line.opens() == []


def test_a_reply_to_a_lost_connection_is_not_sent_on_the_next() -> None:
    line = connected()
    line.hears(wire.RequestDelivery(7, "app.clock", KEY, 1000))
    line.breaks()
    line.session.reply(7, b"late")
    assert line.opens() == []


def test_a_deadline_fails_only_after_the_brokers_own_had_its_time() -> None:
    line = connected()
    ref = line.asks(timeout=2.0)
    line.sends()
    assert line.passes(2.4) == []
    [failed] = line.passes(0.2)
    assert (failed.id, type(failed.error)) == (ref, errors.DeadlineExceeded)
    assert line.hears(wire.ReplyDelivery(ref, KEY), b"late") is None


@pytest.mark.parametrize(("timeout", "sent"), [(-1.0, 0), (1e9, 86_400_000), (0.0015, 1)])
def test_a_deadline_out_of_range_is_brought_into_it(timeout: float, sent: int) -> None:
    line = connected()
    line.asks(timeout)
    [request] = line.sends()
    assert isinstance(request, wire.Request)
    assert request.dl == sent


def test_a_quiet_session_pings_before_a_heartbeat_is_over() -> None:
    line = connected()
    assert line.session.next_timer(line.now) == 8.0
    line.passes(7.9)
    assert line.sends() == []
    line.passes(0.2)
    assert line.sends() == [wire.Ping()]
    assert line.session.next_timer(line.now) == 8.0


def test_a_broker_silent_for_three_heartbeats_is_unreachable() -> None:
    line = connected()
    line.passes(29)
    with pytest.raises(errors.Unreachable, match="silent for three heartbeats"):
        line.passes(2)


def test_pongs_keep_the_session_alive() -> None:
    line = connected()
    for _ in range(20):
        line.passes(6)
        line.sends()
        line.hears(wire.Pong(0, 1))
    assert line.session.welcome is not None


def test_what_is_queued_for_one_subject_leaves_as_one_batch() -> None:
    line = connected()
    for number in range(3):
        assert not line.session.publish("app.x", b"%d" % number)
    line.session.publish("app.y", b"alone")
    assert line.sends_bodies() == [
        (wire.Publish("app.x", 3), wire.join([b"0", b"1", b"2"])),
        (wire.Publish("app.y"), b"alone"),
    ]


def test_a_full_batch_leaves_at_once() -> None:
    line = connected()
    fits = BATCH_ROOM // (100 + BODY_COST)
    results = [line.session.publish("app.x", bytes(100)) for _ in range(fits + 1)]
    assert results == [False] * fits + [True]
    assert line.sends() == [wire.Publish("app.x", fits), wire.Publish("app.x")]
    assert line.session.publish("app.x", bytes(BATCH_ROOM))


def test_batches_of_many_subjects_do_not_wait_for_ever() -> None:
    line = connected()
    results = [line.session.publish(f"app.x{n}", b"") for n in range(MAX_WAITING + 1)]
    assert results == [False] * MAX_WAITING + [True]


def test_other_commands_do_not_overtake_what_was_published_before() -> None:
    line = connected()
    line.session.publish("app.x", b"1")
    line.asks()
    line.session.publish("app.x", b"2")
    assert [type(c) for c in line.sends()] == [wire.Publish, wire.Request, wire.Publish]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["app.a", "app.b"]),
            st.sampled_from([0, 1, 100, BATCH_ROOM - BODY_COST, BATCH_ROOM, LIMITS.payload]),
        ),
        max_size=30,
    )
)
@example([("app.a", 0)] * 5000)
@settings(deadline=None)
def test_every_batch_is_within_the_limits_and_nothing_is_lost_or_reordered(
    published: list[tuple[str, int]],
) -> None:
    line = connected()
    for subject, size in published:
        line.session.publish(subject, bytes(size))
    sent = []
    for command, body in line.sends_bodies():
        assert isinstance(command, wire.Publish)
        assert body is not None
        assert len(body) <= LIMITS.payload
        assert command.n <= LIMITS.batch
        bodies = [body] if command.n == 1 else wire.split(body, command.n)
        sent += [(command.s, len(one)) for one in bodies]
    assert sent == published


@pytest.mark.parametrize("verb", ["publish", "request", "signal"])
def test_a_body_over_the_brokers_limit_is_refused_here(verb: str) -> None:
    line = Line()
    line.session.opened(line.now)
    line.sends()
    line.hears(
        msgspec.structs.replace(WELCOME, limits=msgspec.structs.replace(LIMITS, payload=40_000))
    )
    body = bytes(40_001)
    acts = {
        "publish": lambda: line.session.publish("app.x", body),
        "request": lambda: line.session.request("app.x", body, None, 1.0, line.now),
        "signal": lambda: line.session.signal(KEY, "app.x", body, 1.0, line.now),
    }
    with pytest.raises(errors.LocalProtocolError, match=f"{verb} app.x: a body of 40001 bytes"):
        acts[verb]()
    assert line.sends() == []


def test_a_reply_over_the_limit_becomes_a_refusal() -> None:
    line = connected()
    line.session.reply(7, bytes(LIMITS.payload + 1))
    [reply] = line.sends()
    assert isinstance(reply, wire.Reply)
    assert (reply.r, reply.err, reply.num) == (7, "too_large", 413)


def test_the_longest_refusal_still_fits_and_an_unnamed_one_is_still_one() -> None:
    line = connected()
    wide = "\U0001f600" * 3000
    line.session.reply(7, b"", errors.Refused(409, wide, wide))
    line.session.reply(8, b"", errors.Refused(409, "", ""))
    first, second = line.sends()
    assert isinstance(first, wire.Reply)
    assert first.msg
    assert isinstance(second, wire.Reply)
    assert second.err == "refused"


def test_the_buffer_is_full_at_its_bound_and_has_room_when_sent() -> None:
    line = Line()
    while not line.session.queue.full:
        line.session.publish("app.x", bytes(1 << 20))
    assert line.session.queue._buffered < 10 << 20
    line.opens()
    assert not line.session.queue.full


def test_goodbye_tells_why_the_connection_ends() -> None:
    line = connected()
    line.hears(wire.Goodbye(503, "the broker is stopping"))
    assert line.session.farewell == wire.Goodbye(503, "the broker is stopping")
    line.breaks()
    line.opens()
    assert line.session.farewell is None


@given(st.binary(max_size=80))
@settings(deadline=None)
def test_a_broker_that_does_not_speak_sb1_is_a_remote_error(head: bytes) -> None:
    if head[:3] == b"SB\x01" and len(head) > 3:  # it does, or it is newer than we are
        head = b"\xff" + head
    with pytest.raises(RemoteProtocolError):
        connected().session.receive(head, b"", 100.0)


def test_what_nobody_asked_for_is_ignored_or_passed_on() -> None:
    line = connected()
    assert line.hears(wire.Ok(999)) is None
    assert line.hears(wire.ReplyDelivery(999, KEY)) is None
    stray = wire.Error(403, "denied", "publish mesh.x: not allowed")
    assert line.hears(stray) == stray
    delivery = wire.Delivery(999, "app.x", KEY)
    assert line.hears(delivery, b"x") == delivery


@pytest.mark.parametrize("body", ["text", None, bytearray(b"x"), 7])
def test_a_body_that_is_no_bytes_is_refused_before_it_is_queued(body: bytes) -> None:
    line = connected()
    acts = (
        lambda: line.session.request("app.x", body, None, 1.0, line.now),
        lambda: line.session.signal(KEY, "app.x", body, 1.0, line.now),
        lambda: line.session.durable.store("app.x", body, "", 1.0, line.now),
        lambda: Line(will=("app.x", body)),
    )
    for act in acts:
        if body is not None or act is not acts[-1]:
            with pytest.raises(errors.LocalProtocolError, match="a body is bytes, not"):
                act()
    with pytest.raises(TypeError, match="an answer is bytes, not"):
        line.session.reply(7, body)
    assert line.sends() == []
