"""Jobs on disk: so that no number comes twice, and a result outlives a daemon that was killed."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

import msgspec

from viscript.errors import Failed
from viscript.protocol import Job
from viscript.state import opened

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    request TEXT NOT NULL,
    job BLOB NOT NULL
);
"""


class JobStore:
    """The database of one home. `Failed` when it cannot be used.

    What is saved survives any end of the process, not of the machine: no job outlives that either.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = opened(path, _SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise Failed(f"{path}: cannot be used: {error}; move it away to begin anew") from None

    def close(self) -> None:
        self._db.close()

    def new(self, request: str) -> int:
        """The number of a job that is about to be opened; `Failed` when the disk is full."""
        row = self._change("INSERT INTO jobs (request, job) VALUES (?, '')", (request,))
        return int(row.lastrowid or 0)

    def save(self, job: Job) -> None:
        """`Failed` when the disk is full."""
        text = msgspec.msgpack.encode(job)
        self._change("UPDATE jobs SET job = ? WHERE id = ?", (text, job.job))

    def _change(self, order: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        try:
            return self._db.execute(order, values)
        except sqlite3.Error as error:
            raise Failed(f"{self._path}: cannot be written: {error}; make room for it") from None

    def read(self, number: int) -> Job | None:
        """None when there is none that could be read."""
        try:
            row = self._db.execute("SELECT job FROM jobs WHERE id = ?", (number,)).fetchone()
            return msgspec.msgpack.decode(row[0], type=Job) if row else None
        except (sqlite3.Error, msgspec.MsgspecError, TypeError):
            return None

    def load(self) -> list[tuple[Job, str]]:
        """All that are kept, with the requests that made them; what cannot be read is dropped."""
        found, bad = [], []
        for number, request, text in self._db.execute("SELECT id, request, job FROM jobs"):
            try:
                found.append((msgspec.msgpack.decode(text, type=Job), request))
            except (msgspec.MsgspecError, TypeError):
                bad.append(number)
        self.drop(bad)
        return found

    def drop(self, numbers: list[int]) -> None:
        """Those that a full disk keeps are dropped when they are loaded again: they are old then, too."""
        with suppress(sqlite3.OperationalError):
            self._db.executemany("DELETE FROM jobs WHERE id = ?", [(number,) for number in numbers])
