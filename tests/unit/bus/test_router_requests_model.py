"""Requests against a model that is too simple to be wrong: who may be asked, and what everybody hears.

The model does not say which of several workers is asked: it looks who was, and whether that was right.
"""

from dataclasses import dataclass, field
from itertools import chain, starmap

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
from msgspec.structs import replace

from bus import wire
from bus.subjects import covers
from tests.support.dialogue import BROKER_KEY, Peer, Table

NAMES = ["ada", "ben", "cyd"]
PATTERNS = ["app.a", "app.*"]
SUBJECTS = ["app.a", "app.b"]
HELLO = wire.Hello(caps=[wire.STREAMS, wire.BATCHES])
KEPT = 120


@dataclass(eq=False)
class Service:
    peer: Peer
    pattern: str
    limit: int
    inflight: int = 0
    requests: int = 0
    errors: int = 0

    @property
    def has_room(self) -> bool:
        return self.limit == 0 or self.inflight < self.limit


@dataclass(eq=False)
class Asked:
    """One request to one worker; its number is the body."""

    number: int
    subject: str
    deadline: float
    callers: list["Waiter"]
    kind: str  # plain, stream, all or idem
    patterns: set[str] = field(default_factory=set)  # of whom it waits for
    only: Service | None = None  # the one it waits for
    window: int = 0
    handle: int = 0
    service: Service | None = None
    worker: Peer | None = None


@dataclass(eq=False)
class Waiter:
    """One session that waits for an answer to `ref`."""

    peer: Peer
    ref: int
    deadline: float
    subject: str
    kind: str
    asked: list[Asked] = field(default_factory=list)


Identity = tuple[str, str, str]


class RequestsAgainstModel(RuleBasedStateMachine):
    peers = Bundle("peers")

    def __init__(self) -> None:
        super().__init__()
        self.table = Table(**dict.fromkeys(NAMES, "app"))
        self.present: list[Peer] = []
        self.services: dict[Peer, Service] = {}
        self.waiters: list[Waiter] = []
        self.asked: list[Asked] = []  # waiting or with a worker, oldest first
        self.promised: dict[Identity, Asked] = {}
        self.kept: dict[Identity, tuple[wire.ReplyDelivery, bytes, float]] = {}
        self.expected: list[tuple[Peer, wire.Command, bytes | None]] = []
        self.number = 0

    def next(self) -> int:
        self.number += 1
        return self.number

    # What is done.

    @initialize(target=peers)
    def somebody_serves(self) -> Peer:
        peer = self.join("ben")
        self.serve(peer, "app.*", 1)
        return peer

    @precondition(lambda self: len(self.present) < 6)
    @rule(target=peers, name=st.sampled_from(NAMES))
    def join(self, name: str) -> Peer:
        peer = self.table.join(name, HELLO)
        self.present.append(peer)
        return peer

    @rule(peer=peers, pattern=st.sampled_from(PATTERNS), limit=st.integers(0, 2))
    def serve(self, peer: Peer, pattern: str, limit: int) -> None:
        service = self.services.get(peer)
        if service is not None and service.pattern != pattern:
            self.unserve(peer)
            service = None
        if service is None:
            service = self.services[peer] = Service(peer, pattern, limit)
        service.limit = limit
        peer.say_later(wire.Serve(1, pattern, inflight=limit))
        self.expect(peer, wire.Ok(1))
        self.check()

    @rule(peer=peers, often=st.integers(0, 2))
    def unserves(self, peer: Peer, often: int) -> None:
        if often == 0:
            self.unserve(peer)

    def unserve(self, peer: Peer) -> None:
        service = self.services.get(peer)
        peer.say_later(wire.Unserve(1, service.pattern if service is not None else "app.a"))
        self.withdraw(peer)
        self.expect(peer, wire.Ok(1))
        self.check()

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
        ref, number = self.next(), self.next()
        command = wire.Request(
            ref, subject, seconds * 1000, idem=word if kind == "idem" else "",
            stream=window if kind == "stream" else 0, all=kind == "all",
        )  # fmt: skip
        waiter = Waiter(peer, ref, self.table.now + seconds, subject, kind)
        loads = {p: len(self.with_worker(p)) for p in self.present}
        peer.say_later(command, b"%d" % number)
        identity = (peer.key, subject, word)
        if kind == "idem" and self.repeated(identity, waiter):
            self.check()
            return
        able = [s for s in self.services.values() if covers(s.pattern, subject)]
        if not able:
            self.expect_error(peer, "no_responders", ref)
            self.check()
            return
        self.waiters.append(waiter)
        for service in able if kind == "all" else [None]:
            asked = Asked(number, subject, waiter.deadline, [waiter], kind, only=service)
            asked.patterns = {s.pattern for s in able} if service is None else set()
            asked.window = window
            waiter.asked.append(asked)
            self.asked.append(asked)
        if kind == "idem":
            self.promised[identity] = asked
        room = [loads[s.peer] for s in able if s.has_room]
        self.check()
        if kind != "all" and asked.worker is not None:
            assert loads[asked.worker] == min(room)

    @rule(
        peer=peers, subject=st.sampled_from(SUBJECTS), seconds=st.sampled_from([2, 20]),
        count=st.integers(2, 4),
    )  # fmt: skip
    def batch(self, peer: Peer, subject: str, seconds: int, count: int) -> None:
        """Several are asked at once; the number of each is its ref."""
        refs = [self.next() for _ in range(count)]
        command = wire.Request(refs[0], subject, seconds * 1000, n=count)
        peer.say_later(command, wire.join([b"%d" % ref for ref in refs]))
        patterns = {s.pattern for s in self.services.values() if covers(s.pattern, subject)}
        for ref in refs:
            if not patterns:
                self.expect_error(peer, "no_responders", ref)
                continue
            waiter = Waiter(peer, ref, self.table.now + seconds, subject, "plain")
            asked = Asked(ref, subject, waiter.deadline, [waiter], "plain", set(patterns))
            waiter.asked.append(asked)
            self.waiters.append(waiter)
            self.asked.append(asked)
        self.check()

    @rule(data=st.data())
    def reply_together(self, data: st.DataObject) -> None:
        """Several handles in a row are answered at once."""
        plain = {a.handle: a for a in self.asked if a.worker is not None and a.kind == "plain"}
        if not plain:
            return
        row = [plain[data.draw(st.sampled_from(sorted(plain)))]]
        while (after := plain.get(row[-1].handle + 1)) and after.worker is row[0].worker:
            row.append(after)
        row = row[: data.draw(st.integers(1, len(row)))]
        peer, bodies = row[0].worker, [b"answer %d" % self.next() for _ in row]
        assert peer is not None
        peer.say_later(
            wire.Reply(row[0].handle, n=len(row)),
            wire.join(bodies) if len(row) > 1 else bodies[0],
        )
        for asked, body in zip(row, bodies, strict=True):
            self.done(asked, failed=False)
            [waiter] = asked.callers
            self.expect(waiter.peer, wire.ReplyDelivery(waiter.ref, peer.key), body)
            self.answered(waiter, asked)
        self.check()

    def repeated(self, identity: Identity, waiter: Waiter) -> bool:
        kept = self.kept.get(identity)
        if kept is not None and kept[2] > self.table.now:
            reply = kept[0]
            told = wire.ReplyDelivery(waiter.ref, reply.sender, reply.err)
            self.expect(waiter.peer, told, kept[1])
            return True
        asked = self.promised.get(identity)
        if asked is None:
            return False
        asked.callers.append(waiter)
        asked.deadline = max(asked.deadline, waiter.deadline)
        waiter.asked.append(asked)
        self.waiters.append(waiter)
        return True

    @rule(peer=peers, data=st.data())
    def steal(self, peer: Peer, data: st.DataObject) -> None:
        others = [a for a in self.asked if a.worker not in {None, peer}]
        if others:
            peer.say_later(wire.Reply(data.draw(st.sampled_from(others)).handle), b"stolen")
            self.expect_error(peer, "no_request", None)
            self.check()

    @rule(
        peer=peers, data=st.data(), window=st.integers(1, 2),
        more=st.integers(0, 2), beyond=st.booleans(),
    )  # fmt: skip
    def streams(
        self, peer: Peer, data: st.DataObject, window: int, more: int, beyond: bool
    ) -> None:
        """A stream is asked for, granted `more`, and one is used up, or one chunk `beyond`."""
        self.request(peer, "app.a", 60, "stream", "", window)
        with_worker = [a for a in self.asked if a.worker is not None and a.kind == "stream"]
        if with_worker:
            asked = data.draw(st.sampled_from(with_worker))
            if more:
                self.grant(asked.callers[0], more)
            for _ in range(asked.window + beyond):
                self.say_reply(asked, "chunk")

    @rule(data=st.data(), how=st.sampled_from(["done", "done", "done", "refused", "chunk"]))
    def reply(self, data: st.DataObject, how: str) -> None:
        with_worker = [a for a in self.asked if a.worker is not None]
        if with_worker:
            self.say_reply(data.draw(st.sampled_from(with_worker)), how)

    def say_reply(self, asked: Asked, how: str) -> None:
        peer = asked.worker
        assert peer is not None
        body = b"answer %d" % self.next()
        err = "failed" if how == "refused" else ""
        peer.say_later(wire.Reply(asked.handle, err, more=how == "chunk"), body)
        if how == "chunk":
            self.chunk(asked, peer, body)
        else:
            self.done(asked, failed=bool(err))
            reply = wire.ReplyDelivery(0, peer.key, err)
            for identity in [i for i, a in self.promised.items() if a is asked]:
                del self.promised[identity]
                self.kept[identity] = (reply, body, self.table.now + KEPT)
            for waiter in asked.callers:
                more = asked.kind == "all"
                told = wire.ReplyDelivery(waiter.ref, peer.key, err, more=more)
                self.expect(waiter.peer, told, body)
                self.answered(waiter, asked)
        self.check()

    def chunk(self, asked: Asked, worker: Peer, body: bytes) -> None:
        if asked.kind == "stream" and asked.window > 0:
            asked.window -= 1
            [waiter] = asked.callers
            told = wire.ReplyDelivery(waiter.ref, worker.key, more=True)
            self.expect(waiter.peer, told, body)
            return
        err = "credit" if asked.kind == "stream" else "not_streamed"
        self.expect_error(worker, err, None)
        self.done(asked, failed=True)
        self.fail(asked, err)

    @rule(data=st.data(), more=st.integers(1, 3))
    def credit(self, data: st.DataObject, more: int) -> None:
        streams = [w for w in self.waiters if w.kind == "stream"]
        if streams:
            self.grant(data.draw(st.sampled_from(streams)), more)

    def grant(self, waiter: Waiter, more: int) -> None:
        waiter.peer.say_later(wire.Credit(ref=waiter.ref, m=more))
        [asked] = waiter.asked
        asked.window += more
        if asked.worker is not None:
            self.expect(asked.worker, wire.CreditDelivery(asked.handle, more))
        self.check()

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if not self.waiters:
            return
        waiter = data.draw(st.sampled_from(self.waiters))
        waiter.peer.say_later(wire.Cancel(waiter.ref))
        self.waiters.remove(waiter)
        for asked in waiter.asked:
            asked.callers.remove(waiter)
            if not asked.callers:
                self.take_back(asked)
        self.check()

    @rule(seconds=st.sampled_from([1, 1, 3, 15]))
    def time_passes(self, seconds: int) -> None:
        for peer in self.present:
            peer.say_later(wire.Ping())
            self.expect(peer, wire.Pong(0, 1))
        self.table.passes(seconds)
        now = self.table.now
        for asked in [a for a in self.asked if a.deadline <= now]:
            self.take_back(asked, failed=True)
        for waiter in [w for w in self.waiters if w.deadline <= now]:
            self.waiters.remove(waiter)
            if waiter.kind == "all":
                self.expect(waiter.peer, wire.ReplyDelivery(waiter.ref, BROKER_KEY), b"")
            else:
                self.expect_error(waiter.peer, "deadline", waiter.ref)
            for asked in waiter.asked:
                asked.callers.remove(waiter)
                if not asked.callers and asked.worker is None:
                    self.take_back(asked)
        self.kept = {i: k for i, k in self.kept.items() if k[2] > now}
        self.check()

    @precondition(lambda self: len(self.present) > 2)
    @rule(peer=consumes(peers), politely=st.booleans())
    def leave(self, peer: Peer, politely: bool) -> None:
        if politely:
            peer.say_later(wire.Bye())
        else:
            self.table.router.disconnected(peer.connection.inode)
        self.table.passes(0)
        peer.inbox.clear()
        self.present.remove(peer)
        self.withdraw(peer)
        for waiter in [w for w in self.waiters if w.peer is peer]:
            self.waiters.remove(waiter)
            for asked in waiter.asked:
                asked.callers.remove(waiter)
                if not asked.callers and (asked.kind != "idem" or asked.worker is None):
                    self.take_back(asked)
        for asked in self.with_worker(peer):
            self.done(asked, failed=True)
            able = {s.pattern for s in self.services.values() if covers(s.pattern, asked.subject)}
            if asked.kind == "idem" and asked.callers and able:
                self.asked.append(asked)
                asked.worker = asked.service = None
                asked.patterns = able
            else:
                self.fail(asked, "not_present")
        self.check()

    # What follows from it.

    def withdraw(self, peer: Peer) -> None:
        gone = self.services.pop(peer, None)
        left = {s.pattern for s in self.services.values()}
        for asked in [a for a in self.asked if a.worker is None]:
            asked.patterns &= left
            if asked.only is gone if asked.only is not None else not asked.patterns:
                self.asked.remove(asked)
                self.fail(asked, "no_responders")

    def with_worker(self, peer: Peer) -> list[Asked]:
        return [a for a in self.asked if a.worker is peer]

    def done(self, asked: Asked, *, failed: bool) -> None:
        """The worker has it no more."""
        self.asked.remove(asked)
        if asked.service is not None:
            asked.service.inflight -= 1
            asked.service.errors += failed

    def fail(self, asked: Asked, err: str) -> None:
        self.promised = {i: a for i, a in self.promised.items() if a is not asked}
        for waiter in list(asked.callers):
            if asked.kind != "all":
                self.expect_error(waiter.peer, err, waiter.ref)
            self.answered(waiter, asked)

    def answered(self, waiter: Waiter, asked: Asked) -> None:
        waiter.asked.remove(asked)
        if not waiter.asked:
            self.waiters.remove(waiter)
            if waiter.kind == "all":
                self.expect(waiter.peer, wire.ReplyDelivery(waiter.ref, BROKER_KEY), b"")

    def take_back(self, asked: Asked, *, failed: bool = False) -> None:
        if asked not in self.asked:
            return
        self.promised = {i: a for i, a in self.promised.items() if a is not asked}
        if asked.worker is None:
            self.asked.remove(asked)
            return
        self.done(asked, failed=failed)
        self.expect(asked.worker, wire.CancelDelivery(asked.handle))

    def expect(self, peer: Peer, command: wire.Command, body: bytes | None = None) -> None:
        if peer in self.present:
            self.expected.append((peer, command, body))

    def expect_error(self, peer: Peer, err: str, ref: int | None) -> None:
        self.expect(peer, wire.Error(0, err, ref=ref))

    # Whether it was so.

    def check(self) -> None:
        """All that was expected was heard, nothing else, and who was asked was right to ask."""
        heard, given = [], []
        for peer in self.present:
            for command, body in chain.from_iterable(starmap(apart, peer.hears_bodies())):
                if isinstance(command, wire.RequestDelivery):
                    given.append((command.r, peer, command, int(body or b"")))
                elif isinstance(command, wire.Error):
                    heard.append((peer, wire.Error(0, command.err, ref=command.ref), body))
                else:
                    heard.append((peer, command, body))
        # Handles count up: by them it is told what the broker did first, of all its peers.
        for _, peer, delivery, number in sorted(given, key=lambda g: g[0]):
            self.delivered(peer, delivery, number)
        order = [repr((p.connection.user, c, b)) for p, c, b in heard]
        assert sorted(order) == sorted(repr((p.connection.user, c, b)) for p, c, b in self.expected)
        self.expected.clear()
        for asked in self.asked:
            if asked.worker is None:
                assert not any(s.has_room for s in self.able(asked)), "it waits without need"

    def able(self, asked: Asked) -> list[Service]:
        """Those it waits for."""
        if asked.only is not None:
            return [asked.only]
        return [s for s in self.services.values() if s.pattern in asked.patterns]

    def delivered(self, peer: Peer, command: wire.RequestDelivery, number: int) -> None:
        waiting = [a for a in self.asked if a.worker is None and a.subject == command.s]
        mine = [a for a in waiting if a.number == number and self.services[peer] in self.able(a)]
        [asked] = mine
        if asked.only is None and asked.kind != "idem":  # what is asked again was there before
            same = [a for a in waiting if a.only is None and a.kind != "idem"]
            assert all(a.patterns != asked.patterns or a.number >= number for a in same), "its turn"
        assert command.r > max((a.handle for a in self.asked), default=0) or asked.kind == "all"
        assert command.stream == (asked.window if asked.kind == "stream" else 0)
        assert command.dl == round((asked.deadline - self.table.now) * 1000)
        asked.handle, asked.worker, asked.service = command.r, peer, self.services[peer]
        asked.service.inflight += 1
        asked.service.requests += 1
        assert asked.service.limit == 0 or asked.service.inflight <= asked.service.limit

    @invariant()
    def the_broker_holds_no_more_than_the_model(self) -> None:
        requests = self.table.router.requests
        errands = requests._errands
        handles = {h for desk in errands.desks.values() for h in desk.errands}
        assert handles == {a.handle for a in self.asked if a.worker is not None}
        assert errands.offers.waiting == sum(
            a.worker is None and a.only is None for a in self.asked
        )
        assert {(k, s, w) for k, s, _, w in errands.promised} == set(self.promised)
        assert len(requests._replies) == len(self.kept)
        assert requests.busy == bool(self.waiters)
        for peer in self.present:
            assert peer.session.inflight == sum(w.peer is peer for w in self.waiters)
        told = {
            (i.session, i.limit, i.inflight, i.requests, i.errors)
            for i in requests.services().services
        }
        assert told == {
            (s.peer.session.number, s.limit, s.inflight, s.requests, s.errors)
            for s in self.services.values()
        }
        waits = any(a.worker is None for a in self.asked)
        if not waits and not self.promised and not any(w.kind == "all" for w in self.waiters):
            assert len(errands.holdings) == 0

    def teardown(self) -> None:
        """When all have left, and what went on without them is overdue, nothing is left."""
        for peer in self.present:
            peer.say_later(wire.Bye())
        self.table.passes(200)
        requests = self.table.router.requests
        errands = requests._errands
        assert errands.offers._tree._root.empty
        assert not errands.offers._lines
        left = (errands.desks, errands.promised, errands.freed, errands.orphans)
        assert left == ({}, {}, {}, {})
        assert (errands.offers.waiting, len(errands.holdings), len(requests._replies)) == (0, 0, 0)
        assert not requests.busy


def apart(command: wire.Command, body: bytes | None) -> list[tuple[wire.Command, bytes | None]]:
    """What is heard, each of a batch as if it had come by itself."""
    if not isinstance(command, wire.RequestDelivery | wire.ReplyDelivery) or command.n == 1:
        return [(command, body)]
    key = "r" if isinstance(command, wire.RequestDelivery) else "ref"
    return [
        (replace(command, n=1, **{key: number}), inner)
        for number, inner in enumerate(wire.split(body or b"", command.n), getattr(command, key))
    ]


TestRequestsAgainstModel = RequestsAgainstModel.TestCase
TestRequestsAgainstModel.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None
)
