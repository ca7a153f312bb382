"""The thread that owns the store: the broker's loop hands it works and goes on.

It takes what has gathered, carries it out in one transaction, hands the outcomes back and takes what has
gathered meanwhile: nobody waits for company, and under load one sync serves many. The loop polls `fileno`
and calls `take`. What waits is bounded in works and bytes.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue

from bus.errors import RemoteProtocolError
from bus.signals import TopicInfo
from bus.topics.store import Store
from bus.topics.work import Append, Then, Work

MAX_WORKS = 16_384
MAX_BYTES = 64 << 20
MAX_BATCH = 4096  # works of one transaction


class Journal:
    """Carries out works on the store in `path`, in their order. All methods are for one thread."""

    def __init__(self, path: Path) -> None:
        """Open the store; `StoreError` when it cannot be used."""
        self._store = Store(path)
        self.contents = self._store.contents
        self._queue: SimpleQueue[tuple[Work, Then] | None] = SimpleQueue()
        self.changed: Callable[[TopicInfo, float], None] = lambda _info, _now: None
        self._done: deque[tuple[Work | None, Then, object]] = deque()
        self._works = 0
        self._bytes = 0
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread: threading.Thread | None = None

    def fileno(self) -> int:
        """Readable when `take` has something."""
        return self._wake

    @property
    def busy(self) -> bool:
        """Whether works are under way."""
        return self._works > 0

    @property
    def problem(self) -> str:
        """Why the last transaction failed; empty when it did not."""
        return self._store.problem

    def submit(self, work: Work, then: Then) -> bool:
        """See `bus.topics.work.Journal`."""
        size = _size(work)
        if self._works >= MAX_WORKS or self._bytes + size > MAX_BYTES:
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()
        self._works += 1
        self._bytes += size
        self._queue.put((work, then))
        return True

    def take(self) -> list[tuple[Then, object]]:
        """What has been carried out since: whom to tell, and the outcome."""
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return []
        taken = []
        while self._done:
            work, then, outcome = self._done.popleft()
            if work is not None:
                self._works -= 1
                self._bytes -= _size(work)
            taken.append((then, outcome))
        return taken

    def close(self) -> None:
        """Carry out what waits and close the store."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        self._store.close()
        os.close(self._wake)

    def _run(self) -> None:
        while (batch := self._gather()) is not None:
            works = [work for work, _ in batch]
            outcomes: list[object]
            try:
                outcomes = self._store.carry_out(works)
            except Exception as error:  # noqa: BLE001 - the thread must live to say so
                outcomes = [RemoteProtocolError(500, "internal", f"the store: {error!r}")] * len(
                    works
                )
            for info in self._store.changed:
                self._done.append((None, self.changed, info))
            for (work, then), outcome in zip(batch, outcomes, strict=True):
                self._done.append((work, then, outcome))
            os.eventfd_write(self._wake, 1)

    def _gather(self) -> list[tuple[Work, Then]] | None:
        """Wait for a work; it and what came with it. None when it is time to end."""
        first = self._queue.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < MAX_BATCH:
            try:
                entry = self._queue.get_nowait()
            except Empty:
                break
            if entry is None:
                self._queue.put(None)
                break
            batch.append(entry)
        return batch


def _size(work: Work) -> int:
    return sum(map(len, work.bodies)) if isinstance(work, Append) else 0
