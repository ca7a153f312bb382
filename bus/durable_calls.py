"""A client's commands to durable topics: store, pull, read, settle. Pure."""

from __future__ import annotations

import msgspec

from bus import wire
from bus.sending import Outgoing, SendQueue, check_subject, checked, plain_store
from bus.waiting import Ledger, Waiting


class DurableCalls:
    """Queues the commands; each returns the id under which `Settled` tells how it ended.

    The `id` in a command that is handed in is replaced by a new one. `now` is monotonic seconds.
    """

    def __init__(self, queue: SendQueue, ledger: Ledger) -> None:
        self._queue = queue
        self._ledger = ledger
        self._batches: dict[int, Outgoing] = {}  # of stores, that have left; by their first id

    def store(self, subject: str, body: bytes, message_id: str, timeout: float, now: float) -> int:
        """Publish to a topic and be told its sequence; with a message id it may be sent again."""
        self._queue.check_size("store", subject, body)
        ref = self._ledger.new_id()
        if not message_id:
            check_subject(subject)
            self._queue.add(ref, body, (plain_store, subject))
            self._ledger.add(ref, Waiting("store", subject, now + timeout))
            return ref
        command = wire.Publish(subject, id=ref, mid=message_id)
        checked(command, f"store {subject}")
        self._queue.push(command, body, ref)
        waiting = Waiting("store", subject, now + timeout, again=command, body=body)
        self._ledger.add(ref, waiting)
        return ref

    def pull(self, pull: wire.Pull, timeout: float, now: float) -> int:
        """Take records for a consumer."""
        pull = msgspec.structs.replace(pull, id=self._ledger.new_id())
        waiting = Waiting("pull", f"{pull.topic}/{pull.consumer}", now + timeout, pull=pull)
        return self._fetch(pull, waiting)

    def read(self, read: wire.Read, timeout: float, now: float) -> int:
        """Read records of a topic."""
        read = msgspec.structs.replace(read, id=self._ledger.new_id())
        return self._fetch(read, Waiting("read", read.topic, now + timeout))

    def settle(self, settle: wire.Settle, timeout: float, now: float) -> int:
        """Say what became of records that were pulled."""
        ref = self._ledger.new_id()
        settle = msgspec.structs.replace(settle, id=ref)
        place = f"{settle.topic}/{settle.consumer}"
        checked(settle, f"{settle.act} {place}")
        self._queue.push(settle, None, ref)
        self._ledger.add(ref, Waiting(settle.act, place, now + timeout))
        return ref

    def recorded(self, record: wire.Record, body: bytes, _now: float) -> None:
        """Keep a record until the OK that follows the last; never more than can be asked for."""
        waiting = self._ledger.get(record.ref)
        kept = None if waiting is None else waiting.records
        if kept is not None and len(kept) < wire.MAX_PULL:
            kept.append((record, body))

    # What was stored as a batch.

    def left(self, outgoing: Outgoing) -> None:
        """A batch has left."""
        if (
            outgoing.kind is not None
            and outgoing.kind[0] is plain_store
            and outgoing.id is not None
        ):
            self._batches[outgoing.id] = outgoing

    def lost(self) -> None:
        """The connection is gone, and nobody will answer."""
        self._batches.clear()

    def stored(self, ok: wire.Ok) -> list[wire.Ok]:
        """The answer to each, when `ok` answers a batch: it tells the sequence of the last."""
        batch = self._batches.pop(ok.ref, None)
        if batch is None:
            return []
        if ok.seq is None:
            return [wire.Ok(ref) for ref in batch.ids]
        return [wire.Ok(ref, seq) for seq, ref in enumerate(batch.ids, ok.seq - batch.n + 1)]

    def refused(self, ref: int) -> bool:
        """Whether this was a batch, of which nothing was stored: now each is said by itself."""
        batch = self._batches.pop(ref, None)
        if batch is None:
            return False
        for single in batch.apart():
            if single.id is not None and single.id in self._ledger:
                self._queue.put(single)
        return True

    def give_back(self, waiting: Waiting) -> None:
        """Nobody will see what this pull brought: let another consumer have it at once."""
        pull, seqs = waiting.pull, [record.seq for record, _ in waiting.records or ()]
        if pull is not None and seqs:
            nak = wire.Settle(pull.topic, pull.consumer, seqs[: wire.MAX_PULL], "nak")
            self._queue.push(nak, transient=True)

    def _fetch(self, command: wire.Pull | wire.Read, waiting: Waiting) -> int:
        checked(command, str(waiting))
        waiting.records = []
        self._queue.push(command, None, command.id)
        self._ledger.add(command.id, waiting)
        return command.id
