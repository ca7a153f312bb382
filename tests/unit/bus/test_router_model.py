"""The router against a model that is too simple to be wrong: who is there, who hears what, who answers."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from bus import wire
from bus.subjects import covers
from tests.support.dialogue import Peer, Table

NAMES = ["ada", "ben", "cyd"]
PATTERNS = ["app.a", "app.b", "app.*", "app.>", "topic.>"]
SUBJECTS = ["app.a", "app.b", "app.a.b", "topic.a"]


class RouterAgainstModel(RuleBasedStateMachine):
    """Peers come, subscribe, serve, ask, answer and go; after each step all must have heard all."""

    peers = Bundle("peers")

    def __init__(self) -> None:
        super().__init__()
        self.table = Table(**dict.fromkeys(NAMES, "app"))
        self.present: list[Peer] = []
        self.subscriptions: dict[tuple[Peer, int], str] = {}
        self.services: set[tuple[Peer, str]] = set()
        self.waiting: dict[int, tuple[Peer, int, Peer, float]] = {}  # by handle
        self.number = 0

    def next(self) -> int:
        self.number += 1
        return self.number

    @rule(target=peers, name=st.sampled_from(NAMES))
    def join(self, name: str) -> Peer:
        peer = self.table.join(name)
        self.present.append(peer)
        return peer

    @rule(peer=peers, pattern=st.sampled_from(PATTERNS))
    def subscribe(self, peer: Peer, pattern: str) -> None:
        sid = self.next()
        assert peer.say(wire.Subscribe(sid, sid, pattern)) == [wire.Ok(sid)]
        self.subscriptions[peer, sid] = pattern

    @rule(peer=peers, data=st.data())
    def unsubscribe(self, peer: Peer, data: st.DataObject) -> None:
        own = [sid for holder, sid in self.subscriptions if holder is peer]
        if own:
            sid = data.draw(st.sampled_from(own))
            assert peer.say(wire.Unsubscribe(1, sid)) == [wire.Ok(1)]
            del self.subscriptions[peer, sid]

    @rule(peer=peers, pattern=st.sampled_from(PATTERNS[:4]))
    def serve(self, peer: Peer, pattern: str) -> None:
        assert peer.say(wire.Serve(1, pattern)) == [wire.Ok(1)]
        self.services.add((peer, pattern))

    @rule(peer=peers, pattern=st.sampled_from(PATTERNS[:4]))
    def unserve(self, peer: Peer, pattern: str) -> None:
        assert peer.say(wire.Unserve(1, pattern)) == [wire.Ok(1)]
        self.services.discard((peer, pattern))

    @rule(peer=peers, subject=st.sampled_from(SUBJECTS))
    def publish(self, peer: Peer, subject: str) -> None:
        body = b"%d" % self.next()
        peer.say_later(wire.Publish(subject), body)
        expected = sorted(
            (sid, subject, peer.key, body)
            for (_, sid), pattern in self.subscriptions.items()
            if covers(pattern, subject)
        )
        heard = []
        for listener in self.present:
            for delivery, delivered in listener.hears_bodies():
                assert isinstance(delivery, wire.Delivery)
                assert (listener, delivery.sid) in self.subscriptions
                heard.append((delivery.sid, delivery.s, delivery.sender, delivered))
        assert sorted(heard) == expected

    @rule(peer=peers, subject=st.sampled_from(SUBJECTS[:3]), seconds=st.integers(1, 20))
    def request(self, peer: Peer, subject: str, seconds: int) -> None:
        ref = self.next()
        able = {w for w, pattern in self.services if covers(pattern, subject)}
        peer.say_later(wire.Request(ref, subject, seconds * 1000))
        if not able:
            [error] = peer.hears()
            assert isinstance(error, wire.Error)
            assert (error.err, error.ref) == ("no_responders", ref)
            return
        asked = [(w, command) for w in self.present for command in w.hears()]
        [(worker, command)] = asked
        assert worker in able
        assert isinstance(command, wire.RequestDelivery)
        assert command.r not in self.waiting
        self.waiting[command.r] = (peer, ref, worker, self.table.now + seconds)

    @rule(peer=peers, data=st.data())
    def reply(self, peer: Peer, data: st.DataObject) -> None:
        if not self.waiting:
            return
        handle = data.draw(st.sampled_from(sorted(self.waiting)))
        requester, ref, worker, _ = self.waiting[handle]
        peer.say_later(wire.Reply(handle), b"answer")
        if peer is not worker:
            [error] = peer.hears()
            assert isinstance(error, wire.Error)
            assert error.err == "no_request"
            return
        del self.waiting[handle]
        assert requester.hears_bodies() == [(wire.ReplyDelivery(ref, peer.key), b"answer")]

    @rule(seconds=st.integers(1, 15))
    def time_passes(self, seconds: int) -> None:
        for peer in self.present:
            peer.say(wire.Ping())
        self.table.passes(seconds)
        for handle, (requester, ref, _, deadline) in list(self.waiting.items()):
            if deadline <= self.table.now:
                del self.waiting[handle]
                self.owed(requester, ref, "deadline")
        self.nobody_hears_more()

    @rule(peer=consumes(peers), politely=st.booleans())
    def leave(self, peer: Peer, politely: bool) -> None:
        if politely:
            peer.say_later(wire.Bye())
        else:
            self.table.router.disconnected(peer.connection.inode)
        self.table.carry_out()
        self.present.remove(peer)
        self.subscriptions = {k: p for k, p in self.subscriptions.items() if k[0] is not peer}
        self.services = {s for s in self.services if s[0] is not peer}
        for handle, (requester, ref, worker, _) in list(self.waiting.items()):
            if peer in (requester, worker):
                del self.waiting[handle]
                if requester is not peer:
                    self.owed(requester, ref, "not_present")
        self.nobody_hears_more()

    def owed(self, requester: Peer, ref: int, err: str) -> None:
        found = [e for e, _ in requester.inbox if isinstance(e, wire.Error) and e.ref == ref]
        assert [e.err for e in found] == [err]
        requester.inbox = [(c, b) for c, b in requester.inbox if c not in found]

    def nobody_hears_more(self) -> None:
        assert [c for p in self.present for c in p.hears() if not isinstance(c, wire.Pong)] == []

    @invariant()
    def the_router_holds_no_more_than_the_model(self) -> None:
        router = self.table.router
        assert len(router.sessions) == len(self.present)
        errands = router.requests._errands
        assert {h for desk in errands.desks.values() for h in desk.errands} == set(self.waiting)
        for peer in self.present:
            own = [w for w in self.waiting.values() if w[0] is peer]
            assert peer.session.inflight == len(own)
        if not self.present:
            assert router.publishing._subscriptions._root.empty
            assert errands.offers._tree._root.empty


TestRouterAgainstModel = RouterAgainstModel.TestCase
TestRouterAgainstModel.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
