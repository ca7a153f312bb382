"""A client's core: requests, replies and stores in a row leave as one, and each has an end of its own."""

import msgspec
import pytest

from bus import wire
from bus.errors import LocalProtocolError, NoTopic, Unreachable
from bus.sending import BATCH_ASKED, BATCH_ROOM
from bus.waiting import SettledTogether
from tests.support.line import KEY, WELCOME, Line, connected, settled

OLD = msgspec.structs.replace(WELCOME, caps=[c for c in wire.CAPS if c != wire.BATCHES])


def ask(line: Line, body: bytes = b"", subject: str = "app.clock", timeout: float = 5.0) -> int:
    return line.session.request(subject, body, None, timeout, line.now)


def store(line: Line, body: bytes = b"") -> int:
    return line.session.durable.store("app.log", body, "", 5.0, line.now)


def bodies(sent: tuple[wire.Command, bytes | None]) -> list[bytes]:
    command, body = sent
    n: int = command.n  # type: ignore[attr-defined]
    return wire.split(body or b"", n) if n > 1 else [body or b""]


def ends(event: object) -> dict[int, object]:
    assert isinstance(event, SettledTogether)
    return {each.id: each.error or each.body or (each.ok and each.ok.seq) for each in event.each}


def test_requests_in_a_row_leave_as_one_and_are_answered_each() -> None:
    line = connected()
    refs = [ask(line, b"%d" % number) for number in range(3)]
    [sent] = line.sends_bodies()
    assert sent[0] == wire.Request(refs[0], "app.clock", 5000, n=3)
    assert bodies(sent) == [b"0", b"1", b"2"]
    event = line.hears(wire.ReplyDelivery(refs[0], KEY, n=2), wire.join([b"a", b"b"]))
    assert ends(event) == {refs[0]: b"a", refs[1]: b"b"}
    assert settled(line.hears(wire.ReplyDelivery(refs[2], KEY), b"c")).body == b"c"


def test_what_the_broker_answers_itself_leaves_alone() -> None:
    line = connected()
    refs = [ask(line, b"%d" % number, "$SYS.access.put") for number in range(2)]
    assert line.sends_bodies() == [
        (wire.Request(ref, "$SYS.access.put", 5000), b"%d" % number)
        for number, ref in enumerate(refs)
    ]


def test_one_of_them_may_be_refused() -> None:
    line = connected()
    first, second = ask(line), ask(line)
    line.sends()
    assert settled(line.hears(wire.Error(408, "deadline", ref=second))).id == second
    assert settled(line.hears(wire.ReplyDelivery(first, KEY))).id == first


def test_one_that_nobody_waits_for_any_more_is_left_out_of_the_answers() -> None:
    line = connected()
    first, second = ask(line), ask(line)
    line.sends()
    line.session.forget(first)
    event = line.hears(wire.ReplyDelivery(first, KEY, n=2), wire.join([b"a", b"b"]))
    assert ends(event) == {second: b"b"}


@pytest.mark.parametrize(
    "other", [{"subject": "app.other"}, {"timeout": 6.0}, {"body": bytes(BATCH_ROOM)}]
)
def test_what_is_not_alike_does_not_leave_as_one(other: dict[str, object]) -> None:
    line = connected()
    ask(line, b"x")
    ask(line, **other)  # type: ignore[arg-type]
    ask(line, b"x")
    assert [c.n for c in line.sends() if isinstance(c, wire.Request)] == [1, 1, 1]


def test_order_is_kept_among_what_is_not_alike() -> None:
    line = connected()
    ask(line)
    line.session.publish("topic.x", b"1")
    ask(line)
    ask(line)
    assert [type(c) for c in line.sends()] == [wire.Request, wire.Publish, wire.Request]


def test_a_batch_has_no_more_than_its_limit() -> None:
    line = connected()
    for _ in range(BATCH_ASKED + 1):
        ask(line)
    assert [c.n for c in line.sends() if isinstance(c, wire.Request)] == [BATCH_ASKED, 1]


def test_a_broker_that_does_not_know_batches_gets_one_by_one() -> None:
    line = Line()
    line.session.opened(line.now)
    line.sends()
    line.hears(OLD)
    ask(line)
    ask(line)
    line.session.reply(7, b"a")
    line.session.reply(8, b"b")
    assert [getattr(c, "n", 0) for c in line.sends()] == [1, 1, 1, 1]


def test_a_batch_that_has_not_left_is_taken_apart_for_the_next_broker() -> None:
    line = connected()
    refs = [ask(line, b"%d" % number) for number in range(3)]
    assert line.session.next is not None  # closed, and not sent
    line.breaks()
    line.session.forget(refs[1])
    line.session.opened(line.now)
    line.sends()
    line.hears(OLD)
    sent = line.sends_bodies()
    assert [(c.id, body) for c, body in sent if isinstance(c, wire.Request)] == [
        (refs[0], b"0"), (refs[2], b"2")
    ]  # fmt: skip


def test_a_batch_that_has_left_fails_each_when_the_connection_is_lost() -> None:
    line = connected()
    refs = [ask(line), ask(line)]
    line.sends()
    lost = line.breaks()
    assert [(each.id, type(each.error)) for each in lost] == [(r, Unreachable) for r in refs]


def test_replies_in_a_row_leave_as_one_and_not_over_another_connection() -> None:
    line = connected()
    for handle in (7, 8, 10):
        assert line.session.reply(handle, b"%d" % handle) is False
    sent = line.sends_bodies()
    assert [c for c, _ in sent] == [wire.Reply(7, n=2), wire.Reply(10)]
    assert bodies(sent[0]) == [b"7", b"8"]
    line.session.reply(11, b"late")
    line.breaks()
    assert line.opens() == []


def test_stores_in_a_row_leave_as_one_and_each_gets_its_sequence() -> None:
    line = connected()
    refs = [store(line, b"%d" % number) for number in range(3)]
    [sent] = line.sends_bodies()
    assert sent[0] == wire.Publish("app.log", 3, refs[0])
    event = line.hears(wire.Ok(refs[0], 42))
    assert ends(event) == {refs[0]: 40, refs[1]: 41, refs[2]: 42}


def test_stores_that_no_topic_takes_say_so_each() -> None:
    line = connected()
    refs = [store(line), store(line)]
    line.sends()
    assert ends(line.hears(wire.Ok(refs[0]))) == dict.fromkeys(refs)


def test_when_a_batch_of_stores_is_refused_each_is_tried_by_itself() -> None:
    line = connected()
    refs = [store(line, b"%d" % number) for number in range(3)]
    line.sends()
    line.session.forget(refs[1])
    assert line.hears(wire.Error(507, "store_full", ref=refs[0])) is None
    assert line.sends_bodies() == [
        (wire.Publish("app.log", id=refs[0]), b"0"), (wire.Publish("app.log", id=refs[2]), b"2")
    ]  # fmt: skip
    assert settled(line.hears(wire.Ok(refs[0], 9))).id == refs[0]
    assert settled(line.hears(wire.Error(404, "no_topic", ref=refs[2]))).error.__class__ is NoTopic


def test_a_store_to_no_subject_is_refused_here() -> None:
    with pytest.raises(LocalProtocolError, match="not a subject"):
        connected().session.durable.store("a..b", b"", "", 5.0, 100.0)
