"""Requests against their model: peers come, serve, ask, answer and go, in any order."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from bus import wire
from bus.subjects import covers
from tests.support.dialogue import Peer, Table
from tests.support.requests_model import Asked, RequestsModel, Service, Waiter

NAMES = ["ada", "ben", "cyd"]
PATTERNS = ["app.a", "app.*"]
SUBJECTS = ["app.a", "app.b"]
HELLO = wire.Hello(caps=[wire.STREAMS, wire.BATCHES])


class RequestsAgainstModel(RuleBasedStateMachine):
    peers = Bundle("peers")

    def __init__(self) -> None:
        super().__init__()
        self.model = RequestsModel(Table(**dict.fromkeys(NAMES, "app")))

    @initialize(target=peers)
    def somebody_serves(self) -> Peer:
        peer = self.join("ben")
        self.serve(peer, "app.*", 1)
        return peer

    @precondition(lambda self: len(self.model.present) < 6)
    @rule(target=peers, name=st.sampled_from(NAMES))
    def join(self, name: str) -> Peer:
        peer = self.model.table.join(name, HELLO)
        self.model.present.append(peer)
        return peer

    @rule(peer=peers, pattern=st.sampled_from(PATTERNS), limit=st.integers(0, 2))
    def serve(self, peer: Peer, pattern: str, limit: int) -> None:
        service = self.model.services.get(peer)
        if service is not None and service.pattern != pattern:
            self.unserve(peer)
            service = None
        if service is None:
            service = self.model.services[peer] = Service(peer, pattern, limit)
        service.limit = limit
        peer.say_later(wire.Serve(1, pattern, inflight=limit))
        self.model.expect(peer, wire.Ok(1))
        self.model.check()

    @rule(peer=peers, often=st.integers(0, 2))
    def unserves(self, peer: Peer, often: int) -> None:
        if often == 0:
            self.unserve(peer)

    def unserve(self, peer: Peer) -> None:
        service = self.model.services.get(peer)
        peer.say_later(wire.Unserve(1, service.pattern if service is not None else "app.a"))
        self.model.withdraw(peer)
        self.model.expect(peer, wire.Ok(1))
        self.model.check()

    @rule(peer=peers, subject=st.sampled_from(SUBJECTS), count=st.integers(2, 4))
    def rush(self, peer: Peer, subject: str, count: int) -> None:
        for _ in range(count):
            self.request(peer, subject, 20, "plain", "", 0)

    @rule(
        peer=peers, subject=st.sampled_from(SUBJECTS), seconds=st.sampled_from([2, 20, 60]),
        kind=st.sampled_from(["plain", "plain", "stream", "all", "idem"]),
        word=st.sampled_from(["x", "y"]), window=st.integers(1, 2),
    )  # fmt: skip
    def request(
        self, peer: Peer, subject: str, seconds: int, kind: str, word: str, window: int
    ) -> None:
        ref, number = self.model.next(), self.model.next()
        command = wire.Request(
            ref, subject, seconds * 1000, idem=word if kind == "idem" else "",
            stream=window if kind == "stream" else 0, all=kind == "all",
        )  # fmt: skip
        waiter = Waiter(peer, ref, self.model.table.now + seconds, subject, kind)
        loads = {p: len(self.model.with_worker(p)) for p in self.model.present}
        peer.say_later(command, b"%d" % number)
        identity = (peer.key, subject, word)
        if kind == "idem" and self.model.repeated(identity, waiter):
            self.model.check()
            return
        able = [s for s in self.model.services.values() if covers(s.pattern, subject)]
        if not able:
            self.model.expect_error(peer, "no_responders", ref)
            self.model.check()
            return
        self.model.waiters.append(waiter)
        for service in able if kind == "all" else [None]:
            asked = Asked(number, subject, waiter.deadline, [waiter], kind, only=service)
            asked.patterns = {s.pattern for s in able} if service is None else set()
            asked.window = window
            waiter.asked.append(asked)
            self.model.asked.append(asked)
        if kind == "idem":
            self.model.promised[identity] = asked
        room = [loads[s.peer] for s in able if s.has_room]
        self.model.check()
        if kind != "all" and asked.worker is not None:
            assert loads[asked.worker] == min(room)

    @rule(
        peer=peers, subject=st.sampled_from(SUBJECTS), seconds=st.sampled_from([2, 20]),
        count=st.integers(2, 4),
    )  # fmt: skip
    def batch(self, peer: Peer, subject: str, seconds: int, count: int) -> None:
        """Several are asked at once; the number of each is its ref."""
        model = self.model
        refs = [model.next() for _ in range(count)]
        command = wire.Request(refs[0], subject, seconds * 1000, n=count)
        peer.say_later(command, wire.join([b"%d" % ref for ref in refs]))
        patterns = {s.pattern for s in model.services.values() if covers(s.pattern, subject)}
        for ref in refs:
            if not patterns:
                model.expect_error(peer, "no_responders", ref)
                continue
            waiter = Waiter(peer, ref, model.table.now + seconds, subject, "plain")
            asked = Asked(ref, subject, waiter.deadline, [waiter], "plain", set(patterns))
            waiter.asked.append(asked)
            model.waiters.append(waiter)
            model.asked.append(asked)
        model.check()

    @rule(data=st.data())
    def reply_together(self, data: st.DataObject) -> None:
        """Several handles in a row are answered at once."""
        model = self.model
        plain = {a.handle: a for a in model.asked if a.worker is not None and a.kind == "plain"}
        if not plain:
            return
        row = [plain[data.draw(st.sampled_from(sorted(plain)))]]
        while (after := plain.get(row[-1].handle + 1)) and after.worker is row[0].worker:
            row.append(after)
        row = row[: data.draw(st.integers(1, len(row)))]
        peer, bodies = row[0].worker, [b"answer %d" % model.next() for _ in row]
        assert peer is not None
        peer.say_later(
            wire.Reply(row[0].handle, n=len(row)),
            wire.join(bodies) if len(row) > 1 else bodies[0],
        )
        for asked, body in zip(row, bodies, strict=True):
            model.done(asked, failed=False)
            [waiter] = asked.callers
            model.expect(waiter.peer, wire.ReplyDelivery(waiter.ref, peer.key), body)
            model.answered(waiter, asked)
        model.check()

    @rule(peer=peers, data=st.data())
    def steal(self, peer: Peer, data: st.DataObject) -> None:
        others = [a for a in self.model.asked if a.worker not in {None, peer}]
        if others:
            peer.say_later(wire.Reply(data.draw(st.sampled_from(others)).handle), b"stolen")
            self.model.expect_error(peer, "no_request", None)
            self.model.check()

    @rule(
        peer=peers, data=st.data(), window=st.integers(1, 2),
        more=st.integers(0, 2), beyond=st.booleans(),
    )  # fmt: skip
    def streams(
        self, peer: Peer, data: st.DataObject, window: int, more: int, beyond: bool
    ) -> None:
        """A stream is asked for, granted `more`, and one is used up, or one chunk `beyond`."""
        self.request(peer, "app.a", 60, "stream", "", window)
        with_worker = [a for a in self.model.asked if a.worker is not None and a.kind == "stream"]
        if with_worker:
            asked = data.draw(st.sampled_from(with_worker))
            if more:
                self.grant(asked.callers[0], more)
            for _ in range(asked.window + beyond):
                self.say_reply(asked, "chunk")

    @rule(data=st.data(), how=st.sampled_from(["done", "done", "done", "refused", "chunk"]))
    def reply(self, data: st.DataObject, how: str) -> None:
        with_worker = [a for a in self.model.asked if a.worker is not None]
        if with_worker:
            self.say_reply(data.draw(st.sampled_from(with_worker)), how)

    def say_reply(self, asked: Asked, how: str) -> None:
        peer = asked.worker
        assert peer is not None
        body = b"answer %d" % self.model.next()
        err = "failed" if how == "refused" else ""
        peer.say_later(wire.Reply(asked.handle, err, more=how == "chunk"), body)
        if how == "chunk":
            self.model.chunk(asked, peer, body)
        else:
            self.model.reply(asked, peer, err, body)
        self.model.check()

    @rule(data=st.data(), more=st.integers(1, 3))
    def credit(self, data: st.DataObject, more: int) -> None:
        streams = [w for w in self.model.waiters if w.kind == "stream"]
        if streams:
            self.grant(data.draw(st.sampled_from(streams)), more)

    def grant(self, waiter: Waiter, more: int) -> None:
        waiter.peer.say_later(wire.Credit(ref=waiter.ref, m=more))
        [asked] = waiter.asked
        asked.window += more
        if asked.worker is not None:
            self.model.expect(asked.worker, wire.CreditDelivery(asked.handle, more))
        self.model.check()

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if not self.model.waiters:
            return
        waiter = data.draw(st.sampled_from(self.model.waiters))
        waiter.peer.say_later(wire.Cancel(waiter.ref))
        self.model.cancel(waiter)
        self.model.check()

    @rule(seconds=st.sampled_from([1, 1, 3, 15]))
    def time_passes(self, seconds: int) -> None:
        for peer in self.model.present:
            peer.say_later(wire.Ping())
            self.model.expect(peer, wire.Pong(0, 1))
        self.model.table.passes(seconds)
        self.model.end_what_is_overdue()
        self.model.check()

    @precondition(lambda self: len(self.model.present) > 2)
    @rule(peer=consumes(peers), politely=st.booleans())
    def leave(self, peer: Peer, politely: bool) -> None:
        if politely:
            peer.say_later(wire.Bye())
        else:
            self.model.table.router.disconnected(peer.connection.inode)
        self.model.table.passes(0)
        self.model.leave(peer)
        self.model.check()

    @invariant()
    def the_broker_holds_no_more_than_the_model(self) -> None:
        self.model.compare()

    def teardown(self) -> None:
        self.model.end()


TestRequestsAgainstModel = RequestsAgainstModel.TestCase
TestRequestsAgainstModel.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None
)
