"""The client's core talks to the broker's core, in any order, over connections that break at any time.

What must hold: every request ends once, and with its own answer if it was answered; what one connection
brings to a subscription is in each publisher's order; at the end nothing is waited for any more.
"""

import itertools
from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bus import wire
from bus.session import ClientSession
from bus.subscription import Subscription
from bus.waiting import Settled, SettledTogether, Withdrawn
from tests.support.dialogue import Peer, Table

NAMES = ("alice", "bob")


@dataclass(eq=False)
class Participant:
    """A session, its connection to the broker when there is one, and what it saw."""

    table: Table
    name: str
    peer: Peer | None = None
    ends: dict[int, list[Settled]] = field(default_factory=dict)
    asked: dict[int, bytes] = field(default_factory=dict)  # refs, with the answer they must get
    subscription: Subscription | None = None
    sid: int = 0
    heard: list[int] = field(default_factory=list)  # numbers, over this connection
    unanswered: list[tuple[int, bytes]] = field(default_factory=list)  # handles

    def __post_init__(self) -> None:
        self.session = ClientSession(self.name)

    def connect(self) -> None:
        self.peer = self.table.dial(self.name)
        self.session.opened(self.table.now)
        self.heard.clear()
        if self.subscription is not None:
            self.subscription.restarted()

    def breaks(self) -> None:
        assert self.peer is not None
        self.table.router.disconnected(self.peer.connection.inode)
        self.table.carry_out()
        self.peer = None
        self.unanswered.clear()
        for settled in self.session.lost("lost"):
            self.ends.setdefault(settled.id, []).append(settled)

    def speaks(self) -> bool:
        """Send all there is; whether there was something."""
        spoke = False
        while self.peer is not None and (outgoing := self.session.next) is not None:
            spoke = True
            self.session.sent(self.table.now)
            self.says(self.peer, outgoing.head, outgoing.body)
        return spoke

    def says(self, peer: Peer, head: bytes, body: bytes | None) -> None:
        router, connection, now = self.table.router, peer.connection, self.table.now
        session = router.session(connection.rid, connection.user)
        if session is None:
            router.meet(connection, head, body, now)
        else:
            router.handle(session, head, body, now)

    def listens(self) -> bool:
        """Take in all there is; whether there was something."""
        if self.peer is None:
            return False
        heard = self.peer.hears_bodies()
        for command, body in heard:
            self.hear(command, body or b"")
        return bool(heard)

    def hear(self, command: wire.Command, body: bytes) -> None:
        event = self.session.receive(wire.encode(command), body, self.table.now)
        if isinstance(event, Settled | SettledTogether):
            for each in [event] if isinstance(event, Settled) else event.each:
                self.ends.setdefault(each.id, []).append(each)
        elif isinstance(event, wire.RequestDelivery):
            bodies = [body] if event.n == 1 else wire.split(body, event.n)
            self.unanswered += enumerate(bodies, event.r)
        elif isinstance(event, wire.Delivery) and self.subscription is not None:
            bodies = [body] if event.n == 1 else wire.split(body, event.n)
            self.subscription.put(event.s, event.sender, bodies, len(body))
            self.heard += map(int, bodies)
        elif isinstance(event, wire.Gap) and self.subscription is not None:
            self.subscription.skipped(event.lost, event.first)
        else:
            assert not isinstance(event, Withdrawn)


class TwoCores(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.table = Table(**dict.fromkeys(NAMES, "app"))
        self.all = {name: Participant(self.table, name) for name in NAMES}
        self.numbers = itertools.count(1)
        self.publisher: dict[int, str] = {}  # of a number
        for participant in self.all.values():
            participant.connect()
        self.all["bob"].session.standing.serve("app.echo")
        self.settle()

    def settle(self) -> None:
        """Let everything that is on its way arrive."""
        moving = True
        while moving:
            moving = any(p.speaks() | p.listens() for p in self.all.values())

    def number(self) -> bytes:
        return b"%d" % next(self.numbers)

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 300))
    def publishes(self, name: str, count: int) -> None:
        for _ in range(count):
            body = self.number()
            self.publisher[int(body)] = name
            self.all[name].session.publish("app.news", body)

    @rule(name=st.sampled_from(NAMES), idempotent=st.booleans())
    def asks(self, name: str, idempotent: bool) -> None:
        participant, body = self.all[name], self.number()
        idem = f"token-{body.decode()}" if idempotent else ""
        ref = participant.session.request("app.echo", body, None, 60.0, self.table.now, idem=idem)
        participant.asked[ref] = body

    @rule()
    def answers(self) -> None:
        bob = self.all["bob"]
        for handle, body in bob.unanswered:
            bob.session.reply(handle, body)
        bob.unanswered.clear()

    @rule(name=st.sampled_from(NAMES))
    def subscribes(self, name: str) -> None:
        participant = self.all[name]
        if participant.subscription is None:
            _, participant.sid = participant.session.standing.subscribe("app.news", "drop_old")
            participant.subscription = Subscription("app.news", lambda: None)

    @precondition(lambda self: any(p.peer for p in self.all.values()))
    @rule(name=st.sampled_from(NAMES))
    def connection_breaks(self, name: str) -> None:
        if self.all[name].peer is not None:
            self.all[name].breaks()

    @rule(name=st.sampled_from(NAMES))
    def connects(self, name: str) -> None:
        if self.all[name].peer is None:
            self.all[name].connect()

    @rule()
    def everything_arrives(self) -> None:
        self.settle()

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.settle()
        self.table.passes(seconds)
        for participant in self.all.values():
            for settled in participant.session.handle_timer(self.table.now):
                participant.ends.setdefault(settled.id, []).append(settled)
        self.settle()

    @invariant()
    def a_request_ends_at_most_once_and_with_its_own_answer(self) -> None:
        for participant in self.all.values():
            for ref, body in participant.asked.items():
                ends = participant.ends.get(ref, [])
                assert len(ends) <= 1
                assert all(end.error is not None or end.body == body for end in ends)

    @invariant()
    def what_a_connection_brings_is_in_order_of_each_publisher(self) -> None:
        for participant in self.all.values():
            for name in NAMES:
                own = [n for n in participant.heard if self.publisher[n] == name]
                assert own == sorted(set(own))

    def teardown(self) -> None:
        """With everybody there and answering, every request comes to its end."""
        for participant in self.all.values():
            if participant.peer is None:
                participant.connect()
        for _ in range(70):
            self.answers()
            self.time_passes(1.0)
        for participant in self.all.values():
            for ref, body in participant.asked.items():
                [end] = participant.ends[ref]
                assert end.error is not None or end.body == body
            assert len(participant.session.ledger.items()) == 0


TestTwoCores = TwoCores.TestCase
TestTwoCores.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
