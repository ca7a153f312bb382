"""A program's output on disk: one stream in several files, with the time of each stretch of it.

`LOG` is written, `LOG.1`, `LOG.2`, … were put aside, the last is the oldest; `LOG.1.gz` if compressed.
`LOG.idx`, `LOG.1.idx`, … say when what was written: records of offset and Unix time, at most one a second.

From a pipe the bytes go to the file inside the kernel, so a keeper that is killed loses and doubles none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import time
import zlib

CHUNK = 1 << 16
SLACK = 1 << 17  # before the limit, within which a file ends with a line if it can
PACKED = 1 << 18  # compressed at a time, between two looks at the program's output
RECORD = struct.Struct("<Qd")
SPLICE_F_NONBLOCK = 2


class Log:
    """`rule`: size, files, age, total, gzip, as in the configuration."""

    def __init__(self, path: str, rule: dict[str, float]) -> None:
        self._path = path
        self._files = max(1, int(rule["files"]))
        self._total = int(rule["total"])
        bounds = [x for x in (int(rule["size"]), self._total // 2) if x > 0]
        self._limit = min(bounds, default=1 << 62)
        if self._files == 1:  # two halves: of one, nothing would be left whenever it is full
            self._files, self._limit = 2, max(1, self._limit // 2)
        self._age = rule["age"] or float("inf")
        self._gzip = bool(rule["gzip"])
        self._splices = True
        self._lost = 0
        self._why = ""
        self.dropped = 0  # bytes, in all
        self._packer: _Packer | None = None
        self._fd = self._index = -1
        self._size = 0  # of the file that is written
        self._stamped = self._born = 0.0  # Unix times of the index' last and first record
        self._open()
        self._pack_next()

    def take(self, source: int) -> bool:
        """Some of what is in the pipe `source`; False when there is none now."""
        room = self._room()
        try:
            if not self._splices:
                return self._copy(source, room)
            count = os.splice(source, self._fd, room, flags=SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return False
        except OSError as problem:
            if problem.errno != errno.EINVAL:
                return self._drop(source, problem)
            self._splices = False  # this file system has no such thing
            return self._copy(source, room)
        self._written(count)
        return count > 0

    def write(self, data: bytes) -> None:
        """What did not come through a pipe."""
        view = memoryview(data)
        while view:
            try:
                count = os.write(self._fd, view[: self._room()])
            except OSError as problem:
                self._note(len(view), problem)
                return
            self._written(count)
            view = view[count:]

    @property
    def packing(self) -> bool:
        return self._packer is not None

    def pack(self) -> None:
        """A little of what is to be compressed."""
        if self._packer is not None and not self._packer.step():
            failed, self._packer = self._packer.failed, None
            if not failed:
                self._pack_next()

    def close(self) -> None:
        while self._packer is not None:
            self.pack()
        self._close()

    # Writing.

    def _room(self) -> int:
        """How much may be written at once; makes place first if there is none."""
        if self._stamp_is_old(time.time()) and os.fstat(self._fd).st_size < self._size:
            self._size = os.lseek(self._fd, 0, os.SEEK_END)  # somebody has emptied it
        if self._size and (self._size >= self._limit or self._old_enough()):
            self._rotate()
        if self._lost:
            self._tell_lost()
        return min(CHUNK, max(1, self._limit - self._size))

    def _old_enough(self) -> bool:
        full = self._size >= self._limit - min(SLACK, self._limit // 4)
        if not full and time.time() - self._born < self._age:
            return False
        return os.pread(self._fd, 1, self._size - 1) == b"\n"

    def _copy(self, source: int, room: int) -> bool:
        data = os.read(source, room)
        self.write(data)
        return bool(data)

    def _drop(self, source: int, problem: OSError) -> bool:
        """A full disk costs lines, never the program: it must not wait for us."""
        data = os.read(source, CHUNK)
        self._note(len(data), problem)
        return bool(data)

    def _note(self, count: int, problem: OSError) -> None:
        self.dropped += count
        self._lost += count
        self._why = problem.strerror or str(problem)

    def _tell_lost(self) -> None:
        line = f"[viscript: {self._lost} bytes of output were lost here: {self._why}]\n".encode()
        with contextlib.suppress(OSError):
            self._written(os.write(self._fd, line))
            self._lost = 0

    def _written(self, count: int) -> None:
        now = time.time()
        if count and self._stamp_is_old(now):
            self._stamped = now
            self._born = min(self._born, now)
            with contextlib.suppress(OSError):
                os.write(self._index, RECORD.pack(self._size, now))
        self._size += count

    def _stamp_is_old(self, now: float) -> bool:
        """Also when the clock was put back: otherwise nothing had a time until it is as late again."""
        return abs(now - self._stamped) >= 1

    # Files.

    def _open(self) -> None:
        # No O_APPEND: splice refuses it. There is one writer, by the lock of its folder.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        self._size = os.lseek(self._fd, 0, os.SEEK_END)
        # Also before the first line: who follows knows a file by its index, over rotations and compression.
        self._index = os.open(f"{self._path}.idx", flags, 0o600)
        self._stamped, self._born = 0.0, float("inf")
        whole = os.fstat(self._index).st_size // RECORD.size * RECORD.size  # a torn record is none
        if whole:
            self._born = RECORD.unpack(os.pread(self._index, RECORD.size, 0))[1]
        with contextlib.suppress(OSError):
            os.truncate(self._index, whole)
        os.lseek(self._index, 0, os.SEEK_END)

    def _close(self) -> None:
        os.close(self._fd)
        os.close(self._index)

    def _rotate(self) -> None:
        while self._packer is not None:  # its file is about to be called otherwise
            self.pack()
        for kind in ("", ".gz", ".idx"):
            self._unlink(self._files - 1, kind)
        for number in range(self._files - 2, -1, -1):
            for kind in ("", ".gz", ".idx"):
                with contextlib.suppress(OSError):
                    os.rename(self._name(number, kind), self._name(number + 1, kind))  # noqa: PTH104
        self._close()
        self._open()
        self._keep_total()
        self._pack_next()

    def _name(self, number: int, kind: str) -> str:
        return f"{self._path}.{number}{kind}" if number else f"{self._path}{kind}"

    def _unlink(self, number: int, kind: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._name(number, kind))  # noqa: PTH108

    def _keep_total(self) -> None:
        """The oldest go until all together, the next full file included, is within the bound."""
        left = self._total - self._limit if self._total else 1 << 62
        for number in range(1, self._files):
            for kind in ("", ".gz", ".idx"):
                with contextlib.suppress(OSError):
                    left -= os.stat(self._name(number, kind)).st_size  # noqa: PTH116
                if left < 0:
                    self._unlink(number, kind)

    def _pack_next(self) -> None:
        if not self._gzip:
            return
        for number in range(self._files - 1, 0, -1):
            path = self._name(number, "")
            if os.path.exists(path):  # noqa: PTH110
                with contextlib.suppress(OSError):
                    self._packer = _Packer(path)
                    return


class _Packer:
    """Compresses one file by and by; the plain one stays until the other is whole."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            self._target = os.open(f"{path}.gz.new", flags, 0o600)
        except OSError:
            os.close(self._source)
            raise
        self.failed = False
        self._zlib = zlib.compressobj(6, zlib.DEFLATED, 31)  # 31: as gzip writes it

    def step(self) -> bool:
        """False when there is no more to do."""
        try:
            data = os.read(self._source, PACKED)
            self._write(self._zlib.compress(data) if data else self._zlib.flush())
            if data:
                return True
            os.fdatasync(self._target)  # the plain one may be on the disk, and is about to go
            os.rename(f"{self._path}.gz.new", f"{self._path}.gz")  # noqa: PTH104
            os.unlink(self._path)  # noqa: PTH108
        except OSError:  # the disk is full: it stays as it is
            self.failed = True
            with contextlib.suppress(OSError):
                os.unlink(f"{self._path}.gz.new")  # noqa: PTH108
        os.close(self._source)
        os.close(self._target)
        return False

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._target, view) :]
