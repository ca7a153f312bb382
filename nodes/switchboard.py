"""Whom a record is for: the pumps of streams of all sessions, those who listen on ports, tunnels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from nodes.flows import Answered, Asked, Credited, Cut, Data, Declined, Finished, State
from nodes.pump import Pump
from nodes.tunnel.records import FIRST
from nodes.wire import Code

if TYPE_CHECKING:
    from nodes.flows import Event, Stream
    from nodes.lane import Lane
    from nodes.pump import Holder
    from nodes.tunnel.hub import Tunnels


class Listening(Protocol):
    """An app that takes incoming streams."""

    def incoming(self, pump: Pump, origin: str, greeting: bytes) -> None:
        """Take over `pump` as its holder; `origin` is the key that the session proved."""
        ...


class _Nobody:
    """Holder of a stream that no app has taken yet, or none any more."""

    def opened(self, pump: Pump, reply: bytes) -> None: ...

    def declined(self, pump: Pump, code: int, reply: bytes) -> None: ...

    def ended(self, pump: Pump) -> None: ...

    def closed(self, pump: Pump, code: Code) -> None: ...


NOBODY: Final = _Nobody()


class Switchboard:
    """See the module. `listeners` are by port."""

    def __init__(self, tunnels: Tunnels) -> None:
        self.tunnels = tunnels
        self.listeners: dict[int, Listening] = {}
        self.allowed: dict[int, frozenset[str]] = {}  # keys that may use a port; absent: all may
        self.pumps: dict[Stream, Pump] = {}

    def connect(self, lane: Lane, stream: Stream, holder: Holder) -> Pump:
        """A pump for a new stream."""
        pump = self.pumps[stream] = Pump(lane, stream, holder, self._forget)
        return pump

    def cut(self, streams: list[Stream], code: Code) -> None:
        """These streams ended with their session; those that were complete are written out."""
        for stream in streams:
            pump = self.pumps.get(stream)
            if pump is not None:
                pump.cut(code)

    def give_up(self, lane: Lane, code: Code) -> None:
        """Reset the streams that this side asked for and nobody answered."""
        for stream in list(lane.flows.streams.values()):
            if stream.state is State.OPENING and (pump := self.pumps.get(stream)) is not None:
                pump.reset(code)

    def tick(self) -> None:
        """Once a second."""
        for pump in list(self.pumps.values()):
            pump.tick()

    def handle(self, lane: Lane, record: memoryview, number: int) -> None:
        """A record came in lane `number`, in turn; raises WireError when it breaks the rules."""
        if record[0] >= FIRST:
            self.tunnels.came(lane, record, number)
            return
        event = lane.flows.receive(record, number)
        if type(event) is Data:
            pump = self.pumps.get(event.stream)
            if pump is not None:
                pump.deliver(event.data)
        elif isinstance(event, Asked):
            self._asked(lane, event)
        elif event is not None:
            pump = self.pumps.get(event.stream)
            if pump is not None:
                _tell(pump, event)

    def _asked(self, lane: Lane, event: Asked) -> None:
        port = event.stream.port
        listening = self.listeners.get(port)
        if listening is None:
            lane.flows.reset(event.stream, Code.NO_LISTENER)
            return
        allowed = self.allowed.get(port)
        if allowed is not None and lane.peer not in allowed:
            lane.flows.reset(event.stream, Code.NOT_ALLOWED)
            return
        pump = self.connect(lane, event.stream, NOBODY)
        pump.deliver(event.early)
        listening.incoming(pump, lane.peer, event.greeting)

    def _forget(self, pump: Pump) -> None:
        self.pumps.pop(pump.stream, None)


def _tell(pump: Pump, event: Event) -> None:
    match event:
        case Credited():
            pump.credited()
        case Finished():
            pump.finished()
        case Cut(_, code):
            pump.cut(code)
        case Answered(_, reply):
            pump.answered()
            pump.holder.opened(pump, reply)
        case Declined(_, code, reply):
            pump.holder.declined(pump, code, reply)
            pump.holder = NOBODY
            pump.cut(Code.REFUSED)
        case Data() | Asked():  # handled where they came
            pass
