"""Jobs on disk: so that no number comes twice, and a result outlives a daemon that was killed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from viscript.errors import Failed
from viscript.protocol import Job

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
        try:
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise Failed(f"{path}: cannot be used: {error}; move it away to begin anew") from None

    def close(self) -> None:
        self._db.close()

    def new(self, request: str) -> int:
        """The number of a job that is about to be opened."""
        row = self._db.execute("INSERT INTO jobs (request, job) VALUES (?, '')", (request,))
        return int(row.lastrowid or 0)

    def save(self, job: Job) -> None:
        self._db.execute(
            "UPDATE jobs SET job = ? WHERE id = ?", (msgspec.msgpack.encode(job), job.job)
        )

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
        self._db.executemany("DELETE FROM jobs WHERE id = ?", [(number,) for number in numbers])
