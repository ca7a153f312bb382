"""Windows of streams grow with what the way and the reader take, and not beyond bounds."""

from types import SimpleNamespace

from nodes import wire
from nodes.flows import Flows, State
from nodes.windows import Windowed, Windows
from nodes.wire import Code, Kind

MIB = 1 << 20


def stream(window: int = wire.STREAM_WINDOW) -> Windowed:
    return SimpleNamespace(window=window, received=0, measured=0, measured_at=0.0)


def read(windows: Windows, of: Windowed, rate: float, round_trip: float, seconds: float) -> None:
    """A reader takes `rate` bytes a second at most; the window lets through what it can."""
    now = 0.0
    while now < seconds:
        now += round_trip
        of.received += int(min(rate * round_trip, of.window))
        windows.grow(of, now, round_trip)


def test_a_long_fast_way_gets_a_window_of_twice_what_is_on_it() -> None:
    one = stream()
    read(Windows(), one, rate=50e6, round_trip=0.1, seconds=5)
    assert one.window == 2 * 50e6 * 0.1


def test_no_window_is_larger_than_16_mib() -> None:
    one = stream()
    read(Windows(), one, rate=1e9, round_trip=0.2, seconds=5)
    assert one.window == wire.MAX_WINDOW == 16 * MIB


def test_a_slow_reader_keeps_a_small_window() -> None:
    one = stream()
    read(Windows(), one, rate=1e6, round_trip=0.1, seconds=5)
    assert one.window == wire.STREAM_WINDOW


def test_all_windows_of_a_node_together_are_bounded_and_given_back() -> None:
    windows = Windows(grown=40 * MIB)
    streams = [stream() for _ in range(10)]
    for each in streams:
        read(windows, each, rate=1e9, round_trip=0.2, seconds=5)
    grown = sum(each.window - wire.STREAM_WINDOW for each in streams)
    assert 30 * MIB <= grown <= 40 * MIB
    for each in streams:
        windows.over(each)
    again = stream()
    read(windows, again, rate=1e9, round_trip=0.2, seconds=5)
    assert again.window == wire.MAX_WINDOW


def ask(flows: Flows, count: int, early: bytes = b"") -> None:
    for number in range(1, 2 * count, 2):
        record = wire.open_(number, 80, wire.FIRST_WINDOW, b"", early)
        flows.receive(memoryview(record), 1 + (number >> 1) % wire.DATA_LANES)


def refused(flows: Flows) -> int:
    records = [wire.parse_record(memoryview(record)) for _, record in flows.outbox]
    assert all((kind, code) == (Kind.RESET, Code.LIMIT) for kind, code, *_ in records)
    return len(records)


def test_of_10_000_half_opened_streams_a_session_holds_4096() -> None:
    flows = Flows(odd=False)
    ask(flows, 10_000)
    assert len(flows.streams) == 4096
    assert refused(flows) == 10_000 - 4096


def test_half_opened_streams_of_all_sessions_are_bounded_in_number() -> None:
    windows = Windows()
    sessions = [Flows(odd=False, windows=windows) for _ in range(3)]
    for flows in sessions:
        ask(flows, 4096)
    assert sum(len(flows.streams) for flows in sessions) == 8192


def test_first_data_that_no_app_has_taken_is_bounded_in_bytes() -> None:
    windows = Windows()
    flows = Flows(odd=False, windows=windows)
    ask(flows, 1000, bytes(wire.MAX_FIRST_DATA))
    assert len(flows.streams) == 512
    assert refused(flows) == 488


def test_what_half_opened_streams_held_is_free_when_they_are_answered_or_over() -> None:
    windows = Windows(early=100, unanswered=2)
    flows = Flows(odd=False, windows=windows)
    ask(flows, 2, bytes(50))
    first, second = flows.streams.values()
    assert not windows.admit(0)
    flows.accept(first, b"")
    flows.refuse(second, 1, b"")
    assert windows.admit(100)
    windows.answered(100)
    flows.reset(first, Code.RESET)  # which was answered already
    assert windows.admit(100)
    assert not windows.admit(1)


def test_first_data_is_part_of_the_first_window() -> None:
    flows = Flows(odd=False)
    ask(flows, 1, bytes(1000))
    (one,) = flows.streams.values()
    flows.accept(one, b"")
    assert one.state is State.OPEN
    assert one.received + one.may_receive == wire.FIRST_WINDOW
    opened = memoryview(flows.outbox[-1][1])
    assert wire.parse_amount(opened[wire.RECORD.size :]) == wire.FIRST_WINDOW - 1000
