"""The events of this host, in memory and on disk: two files of JSON lines, the older one replaced in time.

Numbers go on where they ended, whatever ended the daemon. A line is written, not synced: it survives the
daemon, not the machine. So after another boot some numbers are left out, and who follows asks anew.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from viscript.events import MAX_TEXT, PAGE, Event, Page
from viscript.words import one_line

log = logging.getLogger(__name__)

KEPT = 2000  # events in memory
NEWEST = 1 << 20  # bytes of the files that are read at the start
FILE_BYTES = 4 << 20  # of one file; there are two
SKIPPED = 1000  # numbers, after a boot


class EventLog:
    """One writer. `told` is called with every new event."""

    def __init__(
        self, path: Path, host: str, boot: str, told: Callable[[Event], None] = lambda _: None
    ) -> None:
        self.host = host
        self.told = told
        self._path = path
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._lost = False  # something is not on disk
        for event in read(path, NEWEST):
            if self._kept and event.seq != self._kept[-1].seq + 1:
                self._kept.clear()  # what could not be written leaves a hole; after it they are whole
            self._kept.append(event)
        self.last = self._kept[-1].seq if self._kept else 0
        self.booted = bool(self._kept) and _boot(path) != boot  # since the last daemon
        if self.booted:
            self.last += SKIPPED
            self._kept.clear()
        self._fd = self._open()
        self._note_boot(boot)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def add(self, event: Event) -> Event:
        """Give it the next number and tell of it. Never raises: events are not worth an app."""
        event = msgspec.structs.replace(
            event, seq=self.last + 1, host=self.host, text=one_line(event.text)[:MAX_TEXT]
        )
        self.last = event.seq
        self._kept.append(event)
        self._write(event)
        self.told(event)
        return event

    def page(self, after: int | None, limit: int) -> Page:
        """Events after a number, oldest first; without one the last `limit`."""
        if after is None:
            newest = list(self._kept)[-limit:] if limit > 0 else []
            return Page(host=self.host, last=self.last, complete=True, events=newest[-PAGE:])
        if after >= self.last:
            return Page(host=self.host, last=self.last, complete=True, events=[])
        # Numbers in memory have no holes, so the position follows from the number.
        complete = bool(self._kept) and self._kept[0].seq <= after + 1
        found: list[Event] = []
        if complete:
            start = after + 1 - self._kept[0].seq
            found = list(self._kept)[start : start + PAGE]
        return Page(host=self.host, last=self.last, complete=complete, events=found)

    def history(self, wanted: Callable[[Event], bool], limit: int) -> list[Event]:
        """The newest `limit` events that are `wanted`, oldest first, as far as the files go back."""
        return list(deque(filter(wanted, read(self._path)), maxlen=limit))

    def _write(self, event: Event) -> None:
        line = msgspec.json.encode(event) + b"\n"
        try:
            if self._fd is not None and self._size + len(line) > FILE_BYTES:
                self._rotate()
            if self._fd is None:
                self._fd = self._open()
            if self._fd is None:
                return
            written = os.write(self._fd, line)
            self._size += written
            if written < len(line):
                # The disk is full: end the torn line, so that the next is whole.
                self._size += os.write(self._fd, b"\n")
        except OSError as error:
            self._not_written(error)
        else:
            self._lost = False

    def _not_written(self, error: OSError) -> None:
        """Said once, until something can be written again."""
        if not self._lost:
            log.warning("%s: events are kept in memory only: %s", self._path, error)
        self._lost = True

    def _open(self) -> int | None:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            fd = os.open(self._path, flags, 0o600)
            self._size = os.fstat(fd).st_size
            if self._size and os.pread(fd, 1, self._size - 1) != b"\n":  # torn by a kill
                self._size += os.write(fd, b"\n")
        except OSError as error:
            self._not_written(error)
            return None
        return fd

    def _rotate(self) -> None:
        self._path.replace(older(self._path))
        if self._fd is not None:
            os.close(self._fd)
        self._fd = self._open()

    def _note_boot(self, boot: str) -> None:
        try:
            _boot_file(self._path).write_text(boot)
        except OSError as error:
            log.warning("%s: %s", _boot_file(self._path), error)


def older(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def read(path: Path, limit: int | None = None) -> Iterator[Event]:
    """All events in both files, oldest first, or those in the last `limit` bytes.

    What cannot be read is left out.
    """
    decode = msgspec.json.Decoder(Event).decode
    newest = _end_of(path, limit)
    left = None if limit is None else limit - len(newest)
    for data in (_end_of(older(path), left), newest):
        for line in data.splitlines():
            try:
                yield decode(line)
            except msgspec.MsgspecError:  # torn by a kill or a full disk
                continue


def _end_of(path: Path, limit: int | None) -> bytes:
    """The file, or as many whole lines at its end as fit into `limit` bytes."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = 0 if limit is None else max(0, size - limit)
            file.seek(start)
            if start:
                file.readline()
            return file.read()
    except OSError:
        return b""


def _boot_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.boot")


def _boot(path: Path) -> str:
    try:
        return _boot_file(path).read_text()
    except OSError:
        return ""
