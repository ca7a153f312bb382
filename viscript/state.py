"""Launches on disk: SQLite, so that ids are never used twice and nothing is forgotten by a restart."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import msgspec

from viscript.cluster.numbers import Block, Numbers
from viscript.errors import Conflict, Failed
from viscript.records import Record, of_old

KEPT = 1000  # ended launches
CACHE = 256 << 10  # bytes of pages that SQLite keeps: what is looked at again is a few rows

_SCHEMA = """
CREATE TABLE IF NOT EXISTS launches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- AUTOINCREMENT: not even the id of a deleted row comes back
    app TEXT NOT NULL,
    live INTEGER NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS launches_live ON launches (live, id);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


_FAILED = (
    "NOT live AND record != '' AND json_extract(record, '$.state') = 'failed' "
    "AND NOT json_extract(record, '$.cleared')"
)


class Store:
    """The database of one home. `Failed` when it cannot be used.

    Every change survives any end of this process. That there is a launch, its id, and whether it is to run
    also survive that of the machine; how it was doing need not, as it is over then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.more_numbers: Callable[[], Block | None] = lambda: None  # of a cluster
        self._stopped: set[int] = set()  # ids of live ones that are on disk as told to stop
        self._failed: set[int] = set()  # ids of those that `failed` may have to show
        self._waits = False  # a commit, for the disk
        self._unsaved: dict[int, Record] = {}  # as they are, while the disk is full
        try:
            self._db = opened(path, _SCHEMA)
            self._sync(always=True)
            told = self._db.execute(
                "SELECT id FROM launches WHERE live AND record != '' AND json_extract(record, '$.stop')"
            )
            self._stopped.update(number for (number,) in told)
            shown = self._db.execute(f"SELECT id FROM launches WHERE {_FAILED}")  # noqa: S608 - above
            self._failed.update(number for (number,) in shown)
        except (sqlite3.Error, OSError) as error:
            raise Failed(
                f"{path}: cannot be used: {error}; move it away to begin with a new one "
                "(ids then start at 1 again)"
            ) from None

    def close(self) -> None:
        self._db.close()

    def _sync(self, *, always: bool) -> None:
        """Whether a commit is to wait for the disk, from now on."""
        if always != self._waits and not self._db.in_transaction:
            self._db.execute(f"PRAGMA synchronous={'FULL' if always else 'NORMAL'}")
            self._waits = always

    @contextmanager
    def together(self, *, lasting: bool = True) -> Iterator[None]:
        """What is changed meanwhile is written at once, at the end, whatever is raised.

        Not `lasting`: it survives the end of the machine only from the next change on that does.
        """
        self._sync(always=lasting)
        self._change("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            try:
                self._change("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def add(self, record: Record) -> Record:
        """Store a new launch and give it the next id; `Conflict` when the cluster has handed out no more."""
        number = self._next_number()
        with nullcontext() if self._db.in_transaction else self.together():
            row = self._change(
                "INSERT INTO launches (id, app, live, record) VALUES (?, ?, 1, '')",
                (number, record.app),
            )
            record.id = int(row.lastrowid or 0)
            self.save(record)
        return record

    def save(self, record: Record) -> None:
        """`Failed` when it cannot be written; it is known here all the same; the next save tries again."""
        self._unsaved[record.id] = record
        for unsaved in list(self._unsaved.values()):
            number, told = unsaved.id, unsaved.live and unsaved.stop
            self._sync(always=told or (unsaved.live and number in self._stopped))
            self._change(
                "UPDATE launches SET live = ?, record = ? WHERE id = ?",
                (unsaved.live, msgspec.json.encode(unsaved).decode(), number),
            )
            del self._unsaved[number]
            (self._stopped.add if told else self._stopped.discard)(number)
            shown = unsaved.state == "failed" and not unsaved.live and not unsaved.cleared
            (self._failed.add if shown else self._failed.discard)(number)

    def _change(self, order: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """`Failed` when the disk is full or cannot be written."""
        try:
            return self._db.execute(order, values)
        except sqlite3.Error as error:
            raise Failed(f"{self._path}: cannot be written: {error}; make room for it") from None

    def get(self, number: int) -> Record | None:
        found = self._select("WHERE id = ?", number)
        return found[0] if found else None

    def live(self) -> list[Record]:
        return self._select("WHERE live ORDER BY id")

    def ended(self, limit: int) -> list[Record]:
        """The newest that have ended, oldest first."""
        return self._select("WHERE NOT live ORDER BY id DESC LIMIT ?", limit)[::-1]

    def failed(self) -> list[Record]:
        """Those of which nobody has said yet that they need not be shown any more."""
        return self._select(f"WHERE {_FAILED} ORDER BY id") if self._failed else []

    def last_of(self, app: str) -> Record | None:
        found = self._select("WHERE app = ? ORDER BY id DESC LIMIT 1", app)
        return found[0] if found else None

    def prune(self) -> list[Record]:
        """Forget those that ended first; returns them, so that their logs can go too."""
        old = self._select(
            "WHERE NOT live AND record != '' "
            "ORDER BY json_extract(record, '$.ended') DESC, id DESC LIMIT -1 OFFSET ?",
            KEPT,
        )
        for record in old:
            self._change("DELETE FROM launches WHERE id = ?", (record.id,))
        return old

    @property
    def highest(self) -> int:
        """The highest id that was ever given here."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'launches'").fetchone()
        return int(row[0]) if row else 0

    @property
    def numbers(self) -> Numbers | None:
        """Ids that are this host's; None when it is alone, and all are."""
        row = self._db.execute("SELECT value FROM facts WHERE name = 'numbers'").fetchone()
        return msgspec.json.decode(row[0], type=Numbers) if row else None

    def set_numbers(self, numbers: Numbers) -> None:
        self._fact("numbers", msgspec.json.encode(numbers).decode())

    def _next_number(self) -> int | None:
        """None lets the database count."""
        numbers = self.numbers
        if numbers is None:
            return None
        taken = numbers.take()
        if taken is None and (block := self.more_numbers()) is not None:
            taken = numbers.with_block(block).take()
        if taken is None:
            raise Conflict(
                "no ids are left on this host; it gets more as soon as it reaches the first host of the "
                "cluster; see: viscript host ls"
            )
        self.set_numbers(taken[1])
        return taken[0]

    @property
    def session(self) -> int:
        """Which `up` this is, counted from 1; 0 when everything is down."""
        row = self._db.execute("SELECT value FROM facts WHERE name = 'session'").fetchone()
        return int(row[0]) if row else 0

    @property
    def is_up(self) -> bool:
        row = self._db.execute("SELECT value FROM facts WHERE name = 'up'").fetchone()
        return bool(row and row[0] == "1")

    def begin(self, *, lasting: bool = True) -> None:
        """A fresh `up`; not `lasting`: as in `together`."""
        with self.together(lasting=lasting):
            self._fact("session", str(self.session + 1))
            self._fact("up", "1")

    def make_lasting(self) -> None:
        """All that was changed up to now survives the end of the machine."""
        self._fact("up", str(int(self.is_up)))

    def finish(self) -> None:
        """Everything is down on purpose."""
        self._fact("up", "0")

    def _fact(self, name: str, value: str) -> None:
        self._sync(always=True)
        self._change("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, value))

    def _select(self, where: str, *values: object) -> list[Record]:
        rows = self._db.execute(
            f"SELECT id, record FROM launches {where}",  # noqa: S608 - `where` is a literal above
            values,
        )
        return [self._unsaved.get(number) or _record(text) for number, text in rows if text]


def _record(text: str) -> Record:
    try:
        return msgspec.json.decode(text, type=Record)
    except msgspec.ValidationError:
        return msgspec.convert(of_old(msgspec.json.decode(text)), Record)


def opened(path: Path, schema: str) -> sqlite3.Connection:
    """A database with a log of its own, private; a new one comes to the disk at once, not page by page."""
    path.touch(mode=0o600)
    if not path.stat().st_size:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous=OFF")
            db.execute("PRAGMA journal_mode=WAL")
            db.executescript(schema)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA cache_size=-{CACHE >> 10}")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("PRAGMA journal_mode=WAL")
    db.executescript(schema)
    return db


def peek(path: Path) -> list[Record]:
    """All launches, read by who does not own the database; none if it cannot be read."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT record FROM launches WHERE record != ''").fetchall()
        return [_record(text) for (text,) in rows]
    except (sqlite3.Error, msgspec.MsgspecError, ValueError):
        return []
