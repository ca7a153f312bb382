"""The broker's core with durable topics: dialogues as in `dialogue`, and a real store without its thread."""

from collections import deque
from pathlib import Path
from typing import Any

from bus import wire
from bus.routing.durable import Durable
from bus.signals import TopicInfo
from bus.topics.store import Store
from bus.topics.work import Then, Work
from tests.support.dialogue import Peer, Table


class Immediate:
    """A journal that carries out what it was given when it is told to."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self.contents = self.store.contents
        self.changed = lambda info, now: None
        self.waiting: deque[tuple[Work, Then]] = deque()
        self.full = False

    @property
    def busy(self) -> bool:
        return bool(self.waiting)

    def submit(self, work: Work, then: Then) -> bool:
        if not self.full:
            self.waiting.append((work, then))
        return not self.full

    def run(self, now: float) -> None:
        """Carry out all that waits, in one transaction, and tell."""
        batch, self.waiting = list(self.waiting), deque()
        outcomes = self.store.carry_out([work for work, _ in batch])
        for info in self.store.changed:
            assert isinstance(info, TopicInfo)
            self.changed(info, now)
        for (_, then), outcome in zip(batch, outcomes, strict=True):
            then(outcome, now)


class DurableTable(Table):
    """A table whose broker stores topics in `path`; `at_rest` keeps the disk from answering."""

    def __init__(self, path: Path, **names: str | list[str]) -> None:
        super().__init__(**names)
        self.journal = Immediate(path)
        self.durable = Durable(self.router.sessions, self.router.publishing, self.journal, self.now)
        self.router.add(self.durable)
        self.at_rest = False

    def carry_out(self) -> None:
        for _ in range(50):
            self.durable.handle_timer(self.now)
            if self.at_rest or not self.journal.waiting:
                break
            self.journal.run(self.now)
        super().carry_out()

    def close(self) -> None:
        """End as a broker does that is asked to."""
        self.durable.drain(self.now)
        self.carry_out()
        self.journal.store.close()

    def crash(self) -> None:
        """End as `kill -9` does: what was not carried out never was."""
        self.journal.store.close()


def restarted(table: DurableTable, path: Path) -> tuple[DurableTable, Peer]:
    """The broker after `kill -9`, and a peer that came back."""
    table.crash()
    again = DurableTable(path / "topics.db", ada="admin", ben="app")
    table.journal = again.journal  # for the fixture, which closes it
    return again, again.join("ben")


def topic(peer: Peer, name: str = "orders", *subjects: str, **limits: Any) -> Any:
    """Make a topic; give the answer."""
    return peer.asks(
        "$SYS.topic.put", {"topic": name, "subjects": list(subjects or ["app.order.>"]), **limits}
    )


def consumer(peer: Peer, name: str = "shop", of: str = "orders", **config: Any) -> Any:
    return peer.asks("$SYS.consumer.put", {"topic": of, "consumer": name, **config})


def store(peer: Peer, *bodies: bytes, s: str = "app.order.new") -> list[int | None]:
    """Publish each body and give the sequences in the OKs."""
    found = []
    for number, body in enumerate(bodies, 1):
        [ok] = peer.say(wire.Publish(s, id=number), body)
        assert isinstance(ok, wire.Ok), ok
        found.append(ok.seq)
    return found


def pull(
    peer: Peer, n: int = 10, wait: int = 0, name: str = "shop", of: str = "orders"
) -> list[tuple[int, bytes | None, int]]:
    """Pull and give sequence, body and deliveries of each record."""
    peer.say_later(wire.Pull(50, of, name, n, wait))
    return records(peer, 50)


def records(peer: Peer, ref: int) -> list[tuple[int, bytes | None, int]]:
    """Give the records for `ref` that are followed by its OK."""
    *heard, (last, _) = peer.hears_bodies()
    assert isinstance(last, wire.Ok), last
    assert last.ref == ref
    found = []
    for record, body in heard:
        assert isinstance(record, wire.Record), record
        assert record.ref == ref
        found.append((record.seq, body, record.dlv))
    return found


def settle(peer: Peer, *seqs: int, act: str = "ack", delay: int = 0, name: str = "shop") -> None:
    """Settle and hear the OK."""
    heard = peer.say(wire.Settle("orders", name, list(seqs), act, delay, id=60))
    assert heard == [wire.Ok(60)], heard
