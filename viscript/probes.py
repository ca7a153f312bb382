"""One attempt at asking a program how it is: each returns the problem for people, or None when it is well.

An attempt ends within the probe's time limit, whatever the other side does, and holds no more of what is
answered than a line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from viscript import descriptors
from viscript.keeping.child import Identity
from viscript.words import one_line

LOOKS = 50  # hundredths of a second for a killed process to end
TOLD = 200  # characters of it that are shown
LINE = 1024  # bytes that count of what a program answers or prints
CHUNK = 64 << 10
CHUNKS = 64  # read in one go: who prints faster is looked at again later


async def tcp(target: str, timeout: float) -> str | None:
    """`target` is HOST:PORT; well when somebody accepts there."""
    host, _, port = target.rpartition(":")
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except TimeoutError:
        return f"{target} did not answer within {timeout:g} s"
    except (OSError, ValueError) as error:
        return f"{target}: {_said(error)}"
    writer.transport.abort()
    return None


async def http(url: str, timeout: float) -> str | None:
    """Well when a GET is answered with a status from 200 to 399."""
    try:
        async with asyncio.timeout(timeout):
            line = await _status_line(url)
    except TimeoutError:
        return f"{url} did not answer within {timeout:g} s"
    except (OSError, ValueError, EOFError) as error:
        return f"{url}: {_said(error)}"
    found = re.match(rb"HTTP/\d\.\d (\d{3})\b", line)
    if found is None:
        return f"{url}: the answer is not HTTP"
    return None if found[1][:1] in (b"2", b"3") else f"{url}: status {found[1].decode()}"


async def _status_line(url: str) -> bytes:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    context = ssl.create_default_context() if secure else None
    reader, writer = await asyncio.open_connection(
        parts.hostname,
        port,
        ssl=context,
        limit=LINE,
        server_hostname=parts.hostname if secure else None,
    )
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n"
        writer.write(f"{head}User-Agent: viscript\r\nConnection: close\r\n\r\n".encode("ascii"))
        return await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        raise ValueError("the answer is not HTTP") from None
    finally:
        writer.transport.abort()


async def run(
    argv: tuple[str, ...], cwd: str, env: Mapping[str, str], timeout: float, user: str = "", group: str = ""
) -> str | None:  # fmt: skip
    """Well when it ends with code 0; it and its children are killed when time is up."""
    read, write = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read, False)
    try:
        who = Identity(user, group)
        process = subprocess.Popen(  # noqa: ASYNC220 - it only forks; the end is waited for below
            argv, cwd=cwd, env={**env, **who.environment}, stdin=subprocess.DEVNULL, stdout=write,
            stderr=write, start_new_session=True, **_as(who),
        )  # fmt: skip
    except (OSError, ValueError) as error:
        os.close(read)
        return f"{argv[0]} cannot be run: {_said(error)}"
    finally:
        os.close(write)
    descriptors.lower_again(process.pid)
    try:
        return await _ended(process, read, argv[0], timeout)
    finally:
        with contextlib.suppress(ProcessLookupError):  # what it left, or itself, not yet reaped
            os.killpg(process.pid, signal.SIGKILL)
        os.close(read)
        for _ in range(LOOKS):  # an uninterruptible one is left to the next `Popen`, which reaps it
            if process.poll() is not None:
                break
            await asyncio.sleep(0.01)


def _as(who: Identity) -> dict[str, Any]:
    """Arguments of `Popen`."""
    wanted: dict[str, Any] = {}
    if who.gid >= 0:
        wanted["group"] = who.gid
        if os.geteuid() == 0:
            wanted["extra_groups"] = who.groups
    if who.uid >= 0:
        wanted["user"] = who.uid
    return wanted


async def _ended(
    process: subprocess.Popen[bytes], output: int, name: str, timeout: float
) -> str | None:
    loop, ended, told = asyncio.get_running_loop(), asyncio.Event(), bytearray()
    handle = os.pidfd_open(process.pid)

    def hear() -> bool:
        try:
            data = os.read(output, CHUNK)
        except BlockingIOError:
            return False
        told.extend(data)
        del told[:-LINE]
        return bool(data)

    loop.add_reader(handle, ended.set)
    loop.add_reader(output, hear)
    try:
        async with asyncio.timeout(timeout):
            await ended.wait()
    except TimeoutError:
        return f"{name} did not end within {timeout:g} s"
    finally:
        loop.remove_reader(handle)
        loop.remove_reader(output)
        os.close(handle)
    for _ in range(CHUNKS):  # what it left running may print for ever
        if not hear():
            break
    found = _how(process.pid)
    if found is not None and found.si_code == os.CLD_EXITED and found.si_status == 0:
        return None
    how = f"ended with {found.si_status if found is not None else '?'}"
    last = _clean(bytes(told).strip().rpartition(b"\n")[2])
    return f"{name} {how}: {last}" if last else f"{name} {how}"


def _how(pid: int) -> os.waitid_result | None:
    """WNOWAIT: a zombie keeps its pid, and so its group, until its group has been swept."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)


class LogLine:
    """Looks for `pattern` in what was printed since `start`; each attempt reads on, also over a rotation."""

    def __init__(self, path: Path, start: int, pattern: str) -> None:
        self._path = path
        self._at = start
        self._pattern = re.compile(pattern)
        self._file: IO[bytes] | None = None
        self._rest = b""
        self._last = False  # the file is put aside; what is read now is its end

    def look(self) -> str | None:
        """Well when a line has matched."""
        self._open()
        for _ in range(CHUNKS):
            data = self._file.read(CHUNK) if self._file is not None else b""
            if self._matches(data):
                return None
            if not data and not self._rotated():
                break
        return f"no line of its output matches {self._pattern.pattern!r}"

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        if self._file is None:
            with contextlib.suppress(OSError):
                self._file = self._path.open("rb")
                end = self._file.seek(0, os.SEEK_END)
                self._file.seek(self._at if self._at <= end else 0)

    def _rotated(self) -> bool:
        """Whether there is a newer file, which is read when the one that was put aside has been."""
        if self._file is None:
            return False
        try:
            if self._path.stat().st_ino == os.fstat(self._file.fileno()).st_ino:
                return False
        except OSError:
            return False
        if self._last:
            self._last = False
            self.close()
            self._at = 0
            self._open()
        else:
            self._last = True  # it may have been written to between our last look and the rotation
        return True

    def _matches(self, data: bytes) -> bool:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:LINE]  # of a line without end the beginning counts
        return any(self._pattern.search(x[:LINE].decode(errors="replace")) for x in lines)


def _clean(raw: bytes) -> str:
    return one_line(raw.decode(errors="replace"))[:TOLD]


def _said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return one_line(str(error))[:TOLD] or type(error).__name__
