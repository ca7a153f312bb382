"""Credit, queue groups and subscriptions against a model that only counts."""

from collections.abc import Collection
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from bus import wire
from tests.support.dialogue import Peer, Table

NAMES = ["ada", "ben", "cyd"]
GROUPS = ["red", "blue"]
SUBJECT = "app.x"
PLENTY = 1 << 30


@dataclass(eq=False)
class Plain:
    """A subscription of its own: what it has to get, in order."""

    peer: Peer
    owed: list[bytes] = field(default_factory=list)


@dataclass(eq=False)
class Member:
    peer: Peer
    group: "Group"
    window: int
    used: int = 0


@dataclass(eq=False)
class Group:
    """What was published to it and no member has, in order."""

    members: list[Member] = field(default_factory=list)
    owed: list[bytes] = field(default_factory=list)


class FlowAgainstModel(RuleBasedStateMachine):
    """After each step everybody has got what its credit and its window allow, and nothing else."""

    peers = Bundle("peers")

    def __init__(self) -> None:
        super().__init__()
        self.table = Table(**dict.fromkeys(NAMES, "app"))
        self.credit: dict[Peer, int | None] = {}  # of those who are here; None: not counted
        self.plain: dict[tuple[Peer, int], Plain] = {}
        self.member: dict[tuple[Peer, int], Member] = {}
        self.groups = {name: Group() for name in GROUPS}
        self.number = 0

    @rule(target=peers, name=st.sampled_from(NAMES), m=st.none() | st.integers(0, 4))
    def join(self, name: str, m: int | None) -> Peer:
        hello = wire.Hello(credit=None if m is None else wire.Grant(m, PLENTY))
        peer = self.table.join(name, hello)
        self.credit[peer] = m
        return peer

    @rule(peer=peers)
    def subscribe(self, peer: Peer) -> None:
        self.number += 1
        peer.say_later(wire.Subscribe(self.number, self.number, "app.*"))
        self.plain[peer, self.number] = Plain(peer)
        self.all_hear({(peer, self.number)})

    @rule(peer=peers, name=st.sampled_from(GROUPS), window=st.integers(0, 4))
    def join_group(self, peer: Peer, name: str, window: int) -> None:
        self.number += 1
        peer.say_later(wire.Subscribe(self.number, self.number, "app.>", q=name, window=window))
        member = Member(peer, self.groups[name], window)
        member.group.members.append(member)
        self.member[peer, self.number] = member
        self.all_hear({(peer, self.number)})

    @rule(peer=peers, data=st.data())
    def unsubscribe(self, peer: Peer, data: st.DataObject) -> None:
        own = [sid for holder, sid in (*self.plain, *self.member) if holder is peer]
        if own:
            sid = data.draw(st.sampled_from(own))
            peer.say_later(wire.Unsubscribe(sid, sid))
            self.plain.pop((peer, sid), None)  # and with it what waited for credit
            self.forget_member(peer, sid)
            self.all_hear({(peer, sid)})

    @rule(peer=peers, n=st.integers(1, 6))
    def publish(self, peer: Peer, n: int) -> None:
        bodies = [b"%d" % (self.number + i) for i in range(1, n + 1)]
        self.number += n
        peer.say_later(wire.Publish(SUBJECT, n), bodies[0] if n == 1 else wire.join(bodies))
        for plain in self.plain.values():
            plain.owed += bodies
        for group in self.groups.values():
            if group.members:
                group.owed += bodies
        self.all_hear()

    @rule(peer=peers, m=st.integers(0, 5))
    def grant(self, peer: Peer, m: int) -> None:
        credit = self.credit[peer]
        if credit is not None:
            self.credit[peer] = credit + m
            peer.say_later(wire.Credit(m=m))
            self.all_hear()

    @rule(peer=peers, m=st.integers(1, 5), data=st.data())
    def give_back(self, peer: Peer, m: int, data: st.DataObject) -> None:
        own = [sid for holder, sid in self.member if holder is peer]
        if own:
            sid = data.draw(st.sampled_from(own))
            member = self.member[peer, sid]
            member.used = max(0, member.used - m)
            peer.say_later(wire.Credit(sid=sid, m=m))
            self.all_hear()

    @rule(peer=consumes(peers), politely=st.booleans())
    def leave(self, peer: Peer, politely: bool) -> None:
        if politely:
            peer.say_later(wire.Bye())
        else:
            self.table.router.lost(peer.session)
        peer.hears()
        del self.credit[peer]
        for holder, sid in [key for key in (*self.plain, *self.member) if key[0] is peer]:
            self.plain.pop((holder, sid), None)
            self.forget_member(holder, sid)
        self.all_hear()

    def forget_member(self, peer: Peer, sid: int) -> None:
        member = self.member.pop((peer, sid), None)
        if member is not None:
            member.group.members.remove(member)
            if not member.group.members:
                member.group.owed.clear()

    def all_hear(self, answered: Collection[tuple[Peer, int]] = ()) -> None:
        """Take what everybody hears; `answered` are the OKs that are due."""
        self.take_all(answered)
        self.table.passes(0.1)  # for members that had something else in their queue
        self.take_all(())

    def take_all(self, answered: Collection[tuple[Peer, int]]) -> None:
        oks = set()
        given: dict[Group, list[bytes]] = {group: [] for group in self.groups.values()}
        for peer in self.credit:
            for command, body in peer.hears_bodies():
                if isinstance(command, wire.Ok):
                    oks.add((peer, command.ref))
                    continue
                assert isinstance(command, wire.Delivery)
                n = command.n
                self.spend(peer, n)
                bodies = [body or b""] if n == 1 else wire.split(body or b"", n)
                if (peer, command.sid) in self.plain:
                    owed = self.plain[peer, command.sid].owed
                    assert bodies == owed[:n]
                    del owed[:n]
                else:
                    member = self.member[peer, command.sid]
                    member.used += n
                    assert not member.window or member.used <= member.window
                    given[member.group] += bodies
        assert oks == set(answered)
        for group, bodies in given.items():
            assert sorted(bodies, key=int) == group.owed[: len(bodies)], (
                "each once, the oldest first"
            )
            del group.owed[: len(bodies)]

    def spend(self, peer: Peer, n: int) -> None:
        credit = self.credit[peer]
        if credit is not None:
            assert credit > 0, "a delivery without credit"
            self.credit[peer] = credit - n

    def may_get(self, peer: Peer) -> bool:
        credit = self.credit[peer]
        return credit is None or credit > 0

    @invariant()
    def nothing_waits_that_may_go(self) -> None:
        for plain in self.plain.values():
            assert not (plain.owed and self.may_get(plain.peer))
        for group in self.groups.values():
            for member in group.members:
                room = not member.window or member.used < member.window
                assert not (group.owed and room and self.may_get(member.peer))

    @invariant()
    def the_broker_holds_no_more_than_the_model(self) -> None:
        groups = self.table.router.publishing._groups
        held = {group.name: len(group.waiting) for group in groups._groups.values()}
        assert held == {n: len(g.owed) for n, g in self.groups.items() if g.members}
        assert bool(groups._budgets) == any(held.values())
        assert len(self.table.router.sessions) == len(self.credit)


TestFlowAgainstModel = FlowAgainstModel.TestCase
TestFlowAgainstModel.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
