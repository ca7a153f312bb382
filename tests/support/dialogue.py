"""Dialogues with the broker's core: who says what, who hears what, who is cut. No sockets, no clock."""

import itertools
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from bus import signals, wire
from bus.access import AccessList
from bus.identity import from_bytes
from bus.routing.peers import Connection, Session
from bus.routing.router import Router
from bus.routing.sessions import LIMITS
from bus.signals import AccessEntry

BROKER_KEY = from_bytes(bytes(32))
INFO = signals.BrokerInfo("tcp://127.0.0.1:7600", BROKER_KEY, 1, "0.1.0", 42, 0)
decode = wire.Decoder(wire.FROM_BROKER).decode

C = TypeVar("C", bound=wire.Command)


def key_of(name: str) -> str:
    """Make a key from a name: no curve is needed where only the text counts."""
    return from_bytes(name.encode().ljust(32, b"\x01"))


@dataclass(eq=False)
class Peer:
    """One connection at the table."""

    table: "Table"
    connection: Connection
    inbox: list[tuple[wire.Command, bytes | None]] = field(default_factory=list)
    cut: bool = False
    reading: bool = True

    @property
    def key(self) -> str:
        return self.connection.key

    @property
    def session(self) -> Session:
        found = self.table.router.session(self.connection.rid, self.connection.user)
        assert found is not None
        return found

    @property
    def in_session(self) -> bool:
        return self.table.router.session(self.connection.rid, self.connection.user) is not None

    def say(self, command: wire.Command, body: bytes | None = None) -> list[wire.Command]:
        """Say one thing and return all that is heard upon it."""
        return self.say_raw(wire.encode(command), body)

    def say_raw(self, head: bytes, body: bytes | None = None) -> list[wire.Command]:
        router, (rid, user) = self.table.router, (self.connection.rid, self.connection.user)
        session = router.session(rid, user)
        if session is None:
            router.meet(self.connection, head, body, self.table.now)
        else:
            router.handle(session, head, body, self.table.now)
        return self.hears()

    def hears(self) -> list[wire.Command]:
        return [command for command, _ in self.hears_bodies()]

    def hears_bodies(self) -> list[tuple[wire.Command, bytes | None]]:
        self.table.carry_out()
        heard, self.inbox = self.inbox, []
        return heard

    def asks(self, subject: str, value: object = None) -> Any:
        """Ask the broker itself; return the error, or the answer's body decoded."""
        body = b"" if value is None else signals.pack(value)
        self.say_later(wire.Request(99, subject, 1000), body)
        [(answer, answered)] = self.hears_bodies()
        if isinstance(answer, wire.Error):
            return answer
        assert isinstance(answer, wire.ReplyDelivery)
        assert (answer.ref, answer.sender) == (99, BROKER_KEY)
        return msgspec.msgpack.decode(answered or b"")

    def say_later(self, command: wire.Command, body: bytes | None = None) -> None:
        """Say one thing and leave what is heard for later."""
        self.table.router.handle(self.session, wire.encode(command), body, self.table.now)


class Table:
    """A router, its clock, and the peers around it. `names` may join with these roles."""

    def __init__(self, limits: wire.Limits = LIMITS, **names: str | list[str]) -> None:
        self.now = 1000.0
        self.saved: list[AccessList] = []
        self.save_error: OSError | None = None
        entries = [
            AccessEntry(key_of(n), n, r if isinstance(r, list) else [r]) for n, r in names.items()
        ]
        self.router = Router(
            AccessList(entries), INFO, save_access=self._save, clock=lambda: 1.7e9, limits=limits
        )
        self._peers: dict[str, Peer] = {}
        self._numbers = itertools.count(1)

    def dial(self, name: str, rid: bytes | None = None) -> Peer:
        """Connect without a HELLO; `rid` is the routing id."""
        number = next(self._numbers)
        rid = rid if rid is not None else b"\x01" + number.to_bytes(16)
        peer = Peer(self, Connection(rid, f"{key_of(name)} {number}", number, number + 1000))
        self._peers[peer.connection.user] = peer
        return peer

    def join(self, name: str, hello: wire.Hello | None = None, will: bytes | None = None) -> Peer:
        """Connect and say HELLO, this one or the plainest."""
        peer = self.dial(name)
        [welcome] = peer.say(hello or wire.Hello(name=name), will)
        assert isinstance(welcome, wire.Welcome)
        return peer

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.router.handle_timer(self.now)
        self.carry_out()

    def carry_out(self) -> None:
        """Do what the shell does: write to those who read, cut whom the router cuts."""
        for session in self.router.sessions.take_dirty():
            peer = self._peers[session.user]
            while peer.reading and session.outbox.next is not None:
                outgoing = session.outbox.pop()
                peer.inbox.append((decode(outgoing.head), outgoing.body))
        for stray in self.router.sessions.take_strays():
            peer = self._peers[stray.connection.user]
            peer.inbox.append((decode(stray.head), None))
            peer.cut = peer.cut or stray.cut
        for connection in self.router.sessions.take_cuts():
            self._peers[connection.user].cut = True

    def resumes(self, peer: Peer) -> list[tuple[wire.Command, bytes | None]]:
        """Let a peer that did not read take what was kept for it."""
        peer.reading = True
        outbox = peer.session.outbox
        kept = []
        while outbox.next is not None:
            outgoing = outbox.pop()
            kept.append((decode(outgoing.head), outgoing.body))
        return kept

    def _save(self, access: AccessList) -> None:
        if self.save_error is not None:
            raise self.save_error
        self.saved.append(access)


def only(heard: list[wire.Command], kind: type[C]) -> C:
    """Give the one command that was heard, which is of this kind."""
    [command] = heard
    assert isinstance(command, kind), command
    return command


def refused(heard: list[wire.Command]) -> tuple[int, str, int | None]:
    """Number, name and ref of the one error that was heard."""
    error = only(heard, wire.Error)
    return error.num, error.err, error.ref
