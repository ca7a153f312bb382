"""The streams of one session between two end nodes: who may send how much, and what comes next.

Synchronous and without I/O: records that must go out are collected in `outbox`, what came in is
returned as an event. A far end that breaks the rules raises WireError, and the session is over.

A stream's window limits what may lie at the reading end; it is given back in quarters, as the local
reader takes the bytes, and it grows (nodes.windows). What may lie inside the mesh the session limits
(nodes.delivery). The first bytes of a stream may come in its OPEN; OPENED gives that much less credit.

All records of a stream travel in one lane of the session, in order; only CREDIT overtakes them, in the
urgent lane.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nodes import wire
from nodes.windows import Windows
from nodes.wire import Code, Kind, WireError

MAX_STREAMS: Final = 4096  # of one session
_LAST_NUMBER: Final = 0xFFFFFFFF
_ABOUT_STREAMS: Final = frozenset((Kind.OPENED, Kind.FIN, Kind.REFUSE, Kind.RESET))


class State(StrEnum):
    OPENING = "opening"  # we asked, the far app has not answered
    INCOMING = "incoming"  # the far end asked, our app has not answered
    OPEN = "open"
    OVER = "over"


class TooManyStreams(Exception):
    """The session holds all the streams it may."""


@dataclass(slots=True, eq=False)
class Stream:
    """One end of a stream."""

    number: int
    port: int
    lane: int  # of the session
    window: int  # what the far end may have unread here
    state: State
    may_send: int = 0  # bytes the far end still takes
    may_receive: int = 0  # bytes the far end may still send
    owed: int = 0  # bytes taken here and not given back yet
    sent: int = 0
    received: int = 0
    sent_fin: bool = False
    got_fin: bool = False
    greeting: bytes = b""  # of a stream that is asked for, until it is answered
    early: bytes = b""  # its first data, likewise
    measured: int = 0  # bytes received at the time
    measured_at: float = 0.0  # when its reader was measured last
    lately: int = 0  # bytes sent, of which half is forgotten in each `slot`
    slot: int = 0  # of time, when that was so


@dataclass(slots=True, frozen=True)
class Asked:
    """The far end wants a stream to `stream.port`."""

    stream: Stream
    greeting: bytes
    early: memoryview  # the first bytes of the stream


@dataclass(slots=True, frozen=True)
class Answered:
    stream: Stream
    reply: bytes


@dataclass(slots=True, frozen=True)
class Declined:
    """The far app refused, in its own words."""

    stream: Stream
    code: int
    reply: bytes


@dataclass(slots=True, frozen=True)
class Data:
    stream: Stream
    data: memoryview


@dataclass(slots=True, frozen=True)
class Credited:
    """There is room to send again in `stream`."""

    stream: Stream


@dataclass(slots=True, frozen=True)
class Finished:
    stream: Stream


@dataclass(slots=True, frozen=True)
class Cut:
    stream: Stream
    code: Code


Event = Asked | Answered | Declined | Data | Credited | Finished | Cut


class Flows:
    """All streams of a session. The two ends number theirs odd and even."""

    def __init__(
        self, *, odd: bool, windows: Windows | None = None, max_streams: int = MAX_STREAMS
    ) -> None:
        self.streams: dict[int, Stream] = {}
        self.outbox: deque[tuple[int, bytes]] = deque()  # lane and record
        self._windows = windows or Windows()
        self._max_streams = max_streams
        self._next = 1 if odd else 2
        self._far_parity = 0 if odd else 1
        self._far_last = [0] * (wire.DATA_LANES + 1)  # number, by lane

    # What the local side does -------------------------------------------------------------------

    def open(self, port: int, greeting: bytes, early: bytes = b"") -> Stream:
        """Ask the far end for a stream; raises TooManyStreams."""
        if len(self.streams) >= self._max_streams or self._next > _LAST_NUMBER:
            raise TooManyStreams
        stream = Stream(0, port, 0, wire.FIRST_WINDOW, State.OPENING)
        stream.greeting, stream.early = greeting, early
        self.ask(stream)
        return stream

    def ask(self, stream: Stream) -> None:
        """Ask for a stream that is new, or was asked for in a session of which the peer lost all."""
        number = self._next
        self._next += 2
        stream.number, stream.lane = number, 1 + (number >> 1) % wire.DATA_LANES
        stream.state, stream.may_send, stream.may_receive = State.OPENING, 0, stream.window
        stream.sent = len(stream.early)
        self.streams[number] = stream
        self._say(
            stream, wire.open_(number, stream.port, stream.window, stream.greeting, stream.early)
        )

    def accept(self, stream: Stream, reply: bytes) -> None:
        self._windows.answered(stream.received)
        stream.state = State.OPEN
        stream.may_receive = stream.window - stream.received
        self._say(stream, wire.opened(stream.number, stream.may_receive, reply))

    def refuse(self, stream: Stream, code: int, reply: bytes) -> None:
        self._say(stream, wire.record(Kind.REFUSE, stream.number, reply, code=code))
        self._remove(stream)

    def sent(self, stream: Stream, size: int) -> None:
        """`size` bytes of `stream` went out in a DATA record."""
        stream.sent += size
        stream.may_send -= size

    def took(self, stream: Stream, size: int, now: float = 0.0, round_trip: float = 0.0) -> None:
        """The local reader took `size` bytes; `round_trip` to the far end is in s."""
        stream.owed += size
        if stream.owed * 4 < stream.window or stream.got_fin or stream.state is not State.OPEN:
            return
        stream.owed += self._windows.grow(stream, now, round_trip)
        stream.may_receive += stream.owed
        self.outbox.append((wire.CONTROL_LANE, wire.credit(stream.number, stream.owed)))
        stream.owed = 0

    def finish(self, stream: Stream) -> None:
        """Nothing more will be sent in `stream`."""
        if stream.state is State.OVER or stream.sent_fin:
            return
        stream.sent_fin = True
        self._say(stream, wire.record(Kind.FIN, stream.number))
        if stream.got_fin:
            self._remove(stream)

    def reset(self, stream: Stream, code: Code) -> None:
        if stream.state is not State.OVER:
            self._say(stream, wire.record(Kind.RESET, stream.number, code=code))
            self._remove(stream)

    def end(self) -> list[Stream]:
        """The session is over; returns the streams that were cut by it."""
        streams = list(self.streams.values())
        for stream in streams:
            self._remove(stream)
        self.outbox.clear()
        return streams

    # What the far end does ----------------------------------------------------------------------

    def receive(self, payload: memoryview, lane: int) -> Event | None:
        """Apply one record; raises WireError when the far end broke the rules."""
        kind, code, port, number = wire.parse_record(payload)
        body = payload[wire.RECORD.size :]
        if kind == Kind.OPEN:
            return self._asked(number, port, lane, body)
        stream = self.streams.get(number)
        if kind == Kind.CREDIT:
            return self._credited(stream, wire.parse_amount(body))
        if stream is not None and lane != stream.lane:
            raise WireError(f"record of stream {number} in lane {lane}, not {stream.lane}")
        if kind == Kind.DATA:
            return self._data(stream, body)
        _expect(kind in _ABOUT_STREAMS, f"unknown stream record {kind}")
        # A stream that is not there was reset here a moment ago.
        return self._changed(stream, Kind(kind), code, body) if stream is not None else None

    def _changed(self, stream: Stream, kind: Kind, code: int, body: memoryview) -> Event:
        if kind is Kind.OPENED:
            return self._opened(stream, body)
        if kind is Kind.FIN:
            return self._finished(stream)
        if kind is Kind.REFUSE:
            _expect(stream.state is State.OPENING, "REFUSE for a stream that was not asked for")
            self._remove(stream)
            return Declined(stream, code, _text(body))
        self._remove(stream)
        return Cut(stream, Code.of(code))

    def _data(self, stream: Stream | None, data: memoryview) -> Data | None:
        size = len(data)
        _expect(size <= wire.MAX_DATA, "DATA larger than a frame may hold")
        if stream is None:
            return None
        if size > stream.may_receive or stream.got_fin or stream.state is not State.OPEN:
            raise WireError(f"DATA of {size} bytes that stream {stream.number} may not send")
        stream.may_receive -= size
        stream.received += size
        return Data(stream, data)

    def _asked(self, number: int, port: int, lane: int, body: memoryview) -> Asked | None:
        _expect(number % 2 == self._far_parity, f"stream {number} has the parity of this side")
        last = self._far_last[lane]
        _expect(number > last, f"stream {number} is not newer than {last}")
        _expect(number not in self.streams, f"stream {number} is there already")
        _expect(port > 0, "OPEN for port 0")
        self._far_last[lane] = number
        window, greeting, early = wire.parse_open(body)
        if len(self.streams) >= self._max_streams or not self._windows.admit(len(early)):
            self.outbox.append((lane, wire.record(Kind.RESET, number, code=Code.LIMIT)))
            return None
        stream = self._add(number, port, lane, State.INCOMING)
        stream.may_send = window
        stream.received = len(early)
        return Asked(stream, greeting, early)

    def _opened(self, stream: Stream, body: memoryview) -> Answered:
        _expect(stream.state is State.OPENING, "OPENED for a stream that was not asked for")
        stream.may_send += wire.parse_amount(body)  # CREDIT may have overtaken it
        _expect(stream.may_send <= wire.MAX_CREDIT, "too much credit")
        stream.state = State.OPEN
        stream.greeting = stream.early = b""
        return Answered(stream, _text(body[wire.AMOUNT.size :]))

    def _credited(self, stream: Stream | None, amount: int) -> Credited | None:
        if stream is None:
            return None
        stream.may_send += amount
        _expect(stream.may_send <= wire.MAX_CREDIT, f"stream {stream.number}: too much credit")
        return Credited(stream)

    def _finished(self, stream: Stream) -> Finished:
        _expect(
            stream.state is State.OPEN and not stream.got_fin, "FIN for a stream that is not open"
        )
        stream.got_fin = True
        if stream.sent_fin:
            self._remove(stream)
        return Finished(stream)

    def _add(self, number: int, port: int, lane: int, state: State) -> Stream:
        stream = Stream(number, port, lane, wire.FIRST_WINDOW, state)
        self.streams[number] = stream
        return stream

    def _say(self, stream: Stream, record: bytes) -> None:
        self.outbox.append((stream.lane, record))

    def _remove(self, stream: Stream) -> None:
        if stream.state is not State.OVER:
            if stream.state is State.INCOMING:
                self._windows.answered(stream.received)
            stream.state = State.OVER
            self._windows.over(stream)
            del self.streams[stream.number]


def _expect(condition: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise WireError(otherwise)


def _text(data: memoryview) -> bytes:
    _expect(
        len(data) <= wire.MAX_GREETING,
        f"greeting of {len(data)} bytes (at most {wire.MAX_GREETING})",
    )
    return bytes(data)
