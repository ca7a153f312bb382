"""The streams core as dialogues between the two ends of a session."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes import wire
from nodes.flows import (
    Answered,
    Asked,
    Credited,
    Cut,
    Data,
    Declined,
    Event,
    Finished,
    Flows,
    State,
    Stream,
    TooManyStreams,
)
from nodes.windows import Windows
from nodes.wire import Code, Kind, WireError

WINDOW = wire.FIRST_WINDOW


class Ends:
    """Two ends; `to_b()` carries what a has to say and returns what b makes of it."""

    def __init__(self) -> None:
        self.a, self.b = Flows(odd=True), Flows(odd=False)

    def to_b(self) -> list[Event | None]:
        return carry(self.a, self.b)

    def to_a(self) -> list[Event | None]:
        return carry(self.b, self.a)

    def opened(self) -> tuple[Stream, Stream]:
        near = self.a.open(80, b"")
        (asked,) = self.to_b()
        assert isinstance(asked, Asked)
        self.b.accept(asked.stream, b"")
        self.to_a()
        return near, asked.stream


def carry(source: Flows, target: Flows) -> list[Event | None]:
    events = []
    while source.outbox:
        lane, record = source.outbox.popleft()
        events.append(target.receive(memoryview(record), lane))
    return events


def data(flows: Flows, stream: Stream, size: int) -> tuple[memoryview, int]:
    """A DATA record sent by the rules, and its lane."""
    flows.sent(stream, size)
    return memoryview(wire.record(Kind.DATA, stream.number, bytes(size))), stream.lane


def test_a_stream_opens_with_greeting_reply_and_credit() -> None:
    ends = Ends()
    near = ends.a.open(80, b"hello")
    (asked,) = ends.to_b()
    assert isinstance(asked, Asked)
    assert (asked.stream.port, asked.greeting) == (80, b"hello")
    ends.b.accept(asked.stream, b"welcome")
    assert ends.to_a() == [Answered(near, b"welcome")]
    assert near.may_send == asked.stream.may_send == WINDOW
    assert near.state is asked.stream.state is State.OPEN


def test_a_refusal_carries_the_apps_own_words() -> None:
    ends = Ends()
    near = ends.a.open(80, b"")
    (asked,) = ends.to_b()
    assert isinstance(asked, Asked)
    ends.b.refuse(asked.stream, 5, b"no")
    assert ends.to_a() == [Declined(near, 5, b"no")]
    assert ends.a.streams == ends.b.streams == {}


def test_credit_comes_back_in_quarters_as_the_reader_takes() -> None:
    ends = Ends()
    near, far = ends.opened()
    assert isinstance(ends.b.receive(*data(ends.a, near, WINDOW // 2)), Data)
    assert near.may_send == WINDOW // 2
    ends.b.took(far, WINDOW // 4 - 1)
    assert not ends.b.outbox
    ends.b.took(far, 1)
    assert ends.to_a() == [Credited(near)]
    assert near.may_send == WINDOW * 3 // 4


def test_streams_are_spread_over_the_lanes_and_stay_in_theirs() -> None:
    ends = Ends()
    streams = [ends.opened() for _ in range(8)]
    assert [near.lane for near, _ in streams] == [far.lane for _, far in streams]
    assert {near.lane for near, _ in streams} == {1, 2, 3, 4}
    record, lane = data(ends.a, streams[0][0], 1)
    with pytest.raises(WireError, match=f"not {lane}"):
        ends.b.receive(record, lane % 4 + 1)


def test_lanes_may_overtake_each_other() -> None:
    ends = Ends()
    for _ in range(4):
        ends.a.open(80, b"")
    for lane, record in reversed(ends.a.outbox):
        assert isinstance(ends.b.receive(memoryview(record), lane), Asked)


def test_credit_may_overtake_the_answer() -> None:
    ends = Ends()
    near = ends.a.open(80, b"")
    ends.to_b()
    ends.a.receive(memoryview(wire.credit(near.number, 7)), 0)
    ends.a.receive(memoryview(wire.opened(near.number, 100, b"")), near.lane)
    assert near.may_send == 107


def test_sending_without_credit_ends_the_session() -> None:
    ends = Ends()
    near, _far = ends.opened()
    ends.b.receive(*data(ends.a, near, WINDOW))
    with pytest.raises(WireError, match="may not send"):
        ends.b.receive(*data(ends.a, near, 1))


def test_each_side_finishes_for_itself() -> None:
    ends = Ends()
    near, far = ends.opened()
    ends.a.finish(near)
    ends.a.finish(near)
    assert ends.to_b() == [Finished(far)]
    assert isinstance(ends.a.receive(*data(ends.b, far, 10)), Data)
    ends.b.finish(far)
    assert ends.to_a() == [Finished(near)]
    assert near.state is far.state is State.OVER
    assert ends.a.streams == ends.b.streams == {}


def test_data_after_fin_ends_the_session() -> None:
    ends = Ends()
    near, _far = ends.opened()
    ends.a.finish(near)
    ends.to_b()
    with pytest.raises(WireError):
        ends.b.receive(*data(ends.a, near, 1))


def test_a_reset_crosses_data_on_the_way_without_harm() -> None:
    ends = Ends()
    near, far = ends.opened()
    late = data(ends.b, far, 100)
    ends.a.reset(near, Code.RESET)
    assert ends.a.receive(*late) is None
    assert ends.to_b() == [Cut(far, Code.RESET)]
    ends.b.reset(far, Code.RESET)
    assert not ends.b.outbox


def test_both_ends_open_at_once_without_meeting() -> None:
    ends = Ends()
    near, far = ends.a.open(1, b""), ends.b.open(2, b"")
    assert near.number != far.number
    assert isinstance(ends.to_b()[0], Asked)
    assert isinstance(ends.to_a()[0], Asked)


@pytest.mark.parametrize("number", [2, 0, 1])
def test_stream_numbers_have_the_senders_parity_and_rise(number: int) -> None:
    flows = Flows(odd=False)
    flows.receive(memoryview(wire.open_(1, 80, 0, b"")), 1)
    with pytest.raises(WireError):
        flows.receive(memoryview(wire.open_(number, 80, 0, b"")), 1)


def test_more_streams_than_allowed_are_declined_on_both_sides() -> None:
    few = Flows(odd=False, max_streams=2)
    few.open(80, b"")
    few.open(80, b"")
    with pytest.raises(TooManyStreams):
        few.open(80, b"")
    few.outbox.clear()
    assert few.receive(memoryview(wire.open_(1, 80, 0, b"")), 3) is None
    assert list(few.outbox) == [(3, wire.record(Kind.RESET, 1, code=Code.LIMIT))]


def carried(ends: Ends, near: Stream, far: Stream, size: int) -> None:
    while size:
        piece = min(size, near.may_send, wire.MAX_DATA)
        ends.b.receive(*data(ends.a, near, piece))
        ends.b.took(far, piece)
        ends.to_a()
        size -= piece


def test_a_stream_that_carries_much_gets_a_full_window() -> None:
    ends = Ends()
    near, far = ends.opened()
    carried(ends, near, far, WINDOW - 1)
    assert far.window == WINDOW
    carried(ends, near, far, WINDOW)
    assert far.window == wire.STREAM_WINDOW
    assert near.may_send + far.owed == wire.STREAM_WINDOW


def test_a_node_gives_only_so_many_full_windows() -> None:
    ends = Ends()
    ends.b = Flows(odd=False, windows=Windows(grown=wire.STREAM_WINDOW - WINDOW))
    first, second = ends.opened(), ends.opened()
    for near, far in (first, second):
        carried(ends, near, far, 3 * WINDOW)
    assert first[1].window == wire.STREAM_WINDOW
    assert second[1].window == WINDOW
    ends.b.reset(first[1], Code.RESET)
    carried(ends, *second, WINDOW)
    assert second[1].window == wire.STREAM_WINDOW


def test_the_end_of_a_session_cuts_what_is_left() -> None:
    ends = Ends()
    near, _far = ends.opened()
    assert ends.a.end() == [near]
    assert near.state is State.OVER
    assert ends.a.streams == {}


RECORDS = st.builds(
    lambda kind, code, port, stream, body: wire.RECORD.pack(kind, code, port, stream) + body,
    st.integers(0, 9),
    st.integers(0, 255),
    st.integers(0, 3),
    st.integers(0, 6),
    st.binary(max_size=40),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(RECORDS | st.binary(max_size=12), st.integers(0, 4)), max_size=20))
def test_hostile_records_only_ever_end_the_session(records: list[tuple[bytes, int]]) -> None:
    ends = Ends()
    ends.opened()
    for record, lane in records:
        try:
            ends.a.receive(memoryview(record), lane)
        except WireError:
            break
    assert len(ends.a.streams) <= len(records) + 1


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_dialogue_by_the_rules_conserves_bytes_and_credit(draw: st.DataObject) -> None:
    ends = Ends()
    near, far = ends.opened()
    unread = 0
    for _ in range(draw.draw(st.integers(1, 60))):
        if draw.draw(st.booleans()):
            room = min(near.may_send, wire.MAX_DATA)
            if room:
                size = draw.draw(st.integers(1, room))
                ends.b.receive(*data(ends.a, near, size))
                unread += size
        elif unread:
            size = draw.draw(st.integers(1, unread))
            ends.b.took(far, size)
            unread -= size
        ends.to_a()
        assert unread <= far.window
        assert near.may_send + unread + far.owed == far.window
    assert near.sent == far.received
