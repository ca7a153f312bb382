"""A client's core on a line of its own: what it sends, what it is told. No sockets, no clock."""

from bus import wire
from bus.routing.sessions import LIMITS
from bus.session import ClientSession, Event
from bus.waiting import Settled

KEY = "k" * 40
WELCOME = wire.Welcome(1, 1, KEY, ["app"], 10_000, LIMITS, "test", 0, list(wire.CAPS))
from_client = wire.Decoder(wire.FROM_CLIENT).decode


class Line:
    """A connection: what the session sends, and what it is told. Time only passes when told to."""

    def __init__(self, will: tuple[str, bytes] | None = None) -> None:
        self.session = ClientSession("alice", will)
        self.now = 100.0

    def opens(self) -> list[wire.Command]:
        """Connect, say HELLO, be welcomed, and give what is sent upon it."""
        self.session.opened(self.now)
        assert [type(c) for c in self.sends()] == [wire.Hello]
        self.hears(WELCOME)
        return self.sends()

    def sends(self) -> list[wire.Command]:
        return [command for command, _ in self.sends_bodies()]

    def sends_bodies(self) -> list[tuple[wire.Command, bytes | None]]:
        sent = []
        while (outgoing := self.session.next) is not None:
            sent.append((from_client(outgoing.head), outgoing.body))
            self.session.sent(self.now)
        return sent

    def hears(self, command: wire.Command, body: bytes = b"") -> Event | None:
        return self.session.receive(wire.encode(command), body, self.now)

    def asks(self, timeout: float = 5.0) -> int:
        return self.session.request("app.clock", b"", None, timeout, self.now)

    def breaks(self) -> list[Settled]:
        return self.session.lost("the connection was lost")

    def passes(self, seconds: float) -> list[Settled]:
        self.now += seconds
        return self.session.handle_timer(self.now)


def connected() -> Line:
    line = Line()
    assert line.opens() == []
    return line


def settled(event: Event | None) -> Settled:
    assert isinstance(event, Settled)
    return event
