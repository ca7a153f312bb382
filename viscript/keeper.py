"""Keeps one running program: owns its processes, its log and its exit code, and outlives the daemon.

Run as `python -I -S keeper.py FOLDER`; only the standard library, because it stays in memory once per
app. The starting process ends when the program runs or could not be started; the keeper goes on alone,
out of the daemon's process tree. FOLDER holds:

* `spec.json`: what to run (argv, cwd, log, ctl, id, generation), or `adopt`: which process to take over
  whose keeper was killed. The environment is inherited, so that it is never written down.
* `lock`: held for as long as this keeper lives, so there is never a second one.
* `state.json`: what is known, replaced in whole at every change.

Over the unix socket `ctl` (same user only) the keeper sends its state as one JSON line at once and at every
change, and takes `{"do": "stop", "grace": seconds}`, `{"do": "signal", "signal": n}` and `{"do": "ping"}`.
A signal goes only to a process whose identity (descriptor or start time) is sure.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

PROTO = 1
LOG_BYTES, LOG_FILES = 10 << 20, 3
PIPE_BYTES = 1 << 20  # what the program may print while no keeper reads
GRACE = 5.0  # seconds between TERM and KILL for what a program leaves behind
GIVE_UP = (
    5.0  # seconds after KILL; a process in an uninterruptible wait is then reported, not waited for
)
SWEEP = 0.05  # seconds between two looks at /proc while processes end
F_SETPIPE_SZ = 1031
PR_SET_CHILD_SUBREAPER = 36
EXIT_LOCKED = 9

Json = dict[str, Any]


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123 - pathlib costs memory
        return file.read().strip()


def process_stat(pid: int) -> tuple[str, int, int, int] | None:
    """State letter, parent, session and start time in clock ticks; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            text = file.read()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()  # the name before may hold anything
    return fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19])


class Log:
    """The program's output on disk: at most LOG_FILES files of LOG_BYTES."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open()

    def write(self, data: bytes) -> None:
        if self._size + len(data) > LOG_BYTES and self._size:
            self._rotate()
        with contextlib.suppress(OSError):  # a full disk costs lines, never the program
            self._size += os.write(self._fd, data)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        for number in range(LOG_FILES - 1, 0, -1):
            older = f"{self._path}.{number - 1}" if number > 1 else self._path
            with contextlib.suppress(OSError):
                os.rename(older, f"{self._path}.{number}")  # noqa: PTH104
        os.close(self._fd)
        self._open()


class Keeper:
    """One program from its start to the end of its last process."""

    def __init__(self, folder: str, spec: Json) -> None:
        self._folder = folder
        self._spec = spec
        self._ours = spec.get("adopt") is None
        self._poll = select.poll()
        self._readers: dict[int, Callable[[], object]] = {}
        self._clients: dict[int, socket.socket] = {}
        self._log = Log(spec["log"])
        self._output = -1  # the end of the pipe that we read
        self._deadline: float | None = None  # when KILL follows
        self._killed_at: float | None = None
        self.state: Json = {
            "proto": PROTO, "id": spec["id"], "generation": spec["generation"], "state": "starting",
            "pid": None, "start_ticks": None, "boot_id": boot_id(), "keeper_pid": os.getpid(),
            "code": None, "signal": None, "errno": None, "error": None, "killed": False,
            "started": time.time(), "ended": None, "left": [],
        }  # fmt: skip

    # Starting.

    def start(self) -> bool:
        """Run or take over the program; False when it could not be started, as the state says."""
        problem = self._spawn() if self._ours else self._take_over()
        if problem is not None:
            self.state.update(state="failed", errno=problem.errno, error=problem.strerror)
            self.save()
            return False
        self._leader: int = self.state["pid"]
        self._pidfd = os.pidfd_open(self._leader)
        found = process_stat(self._leader)
        self.state.update(state="running", start_ticks=found[3] if found else None)
        self._watch(self._pidfd, self._leader_ended)
        self._listen()
        self.save()
        return True

    def _spawn(self) -> OSError | None:
        self._output, output = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._output, F_SETPIPE_SZ, PIPE_BYTES)
        failure, report = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            self._become(output, report)
        os.close(output)
        os.close(report)
        with os.fdopen(failure, "rb") as file:  # ends when exec has closed the other end
            problem = file.read()
        if problem:
            os.waitpid(pid, 0)
            number = int(problem)
            return OSError(number, os.strerror(number))
        self._watch_output()
        self.state["pid"] = pid
        return None

    def _become(self, output: int, report: int) -> None:
        """In the child: turn into the program. Never returns."""
        try:
            os.setsid()
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT,
                           signal.SIGTERM, signal.SIGCHLD):  # fmt: skip
                signal.signal(number, signal.SIG_DFL)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            # Open for reading too: its own descriptor counts as a reader, so no EPIPE when we die.
            both = os.open(f"/proc/self/fd/{output}", os.O_RDWR)
            os.dup2(both, 1)
            os.dup2(both, 2)
            os.chdir(self._spec["cwd"])
            os.execv(self._spec["argv"][0], self._spec["argv"])  # noqa: S606 - no shell on purpose
        except OSError as error:
            os.write(report, str(error.errno).encode())
        finally:
            os._exit(127)

    def _take_over(self) -> OSError | None:
        wanted = self._spec["adopt"]
        found = process_stat(wanted["pid"])
        if found is None or found[3] != wanted["start_ticks"]:
            return OSError(3, "the process has ended")
        self.state.update(pid=wanted["pid"], started=wanted["started"])
        with contextlib.suppress(OSError):  # it may have closed or redirected its output
            path = f"/proc/{wanted['pid']}/fd/1"
            if stat.S_ISFIFO(os.stat(path).st_mode):  # noqa: PTH116
                self._output = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self._watch_output()
        return None

    def _watch_output(self) -> None:
        os.set_blocking(self._output, False)
        self._watch(self._output, self._pump)

    def _listen(self) -> None:
        path = self._spec["ctl"]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - we hold the lock, so it is nobody's
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(path)
        os.chmod(path, 0o600)  # noqa: PTH101
        self._server.listen(8)
        os.set_blocking(self._server.fileno(), False)
        self._watch(self._server.fileno(), self._accept)

    # Running.

    def run(self) -> None:
        """Until the last process has ended."""
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._stop(GRACE))
        self._watch(read, lambda: self._reap(read))
        while self.state["state"] != "gone":
            busy = self._deadline is not None or self.state["state"] == "exited"
            for fd, _ in self._poll.poll(SWEEP * 1000 if busy else None):
                if fd in self._readers:
                    self._readers[fd]()
            if busy:
                self._sweep()
        self._finish()

    def _watch(self, fd: int, reader: Callable[[], object]) -> None:
        self._readers[fd] = reader
        self._poll.register(fd, select.POLLIN)

    def _forget(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._readers[fd]

    def _pump(self) -> bool:
        """Some of the program's output into the log; False when there is none now."""
        try:
            data = os.read(self._output, 1 << 16)
        except BlockingIOError:
            return False
        if data:
            self._log.write(data)
        else:
            self._forget(self._output)
        return bool(data)

    def _reap(self, wakeup: int) -> None:
        """Reap orphans that became ours. The leader stays a zombie, so its pid cannot be reused."""
        os.read(wakeup, 512)
        kind = os.WEXITED | os.WNOHANG | os.WNOWAIT
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, kind)) and ended.si_pid != self._leader:
                os.waitpid(ended.si_pid, 0)

    def _leader_ended(self) -> None:
        self._forget(self._pidfd)
        if self._ours:
            ended = os.waitid(os.P_PID, self._leader, os.WEXITED | os.WNOWAIT)
            assert ended is not None  # noqa: S101 - without WNOHANG there is a result
            killed = ended.si_code != os.CLD_EXITED
            self.state["signal" if killed else "code"] = ended.si_status
        self.state.update(state="exited", ended=time.time())
        if not self._members():
            self.state["state"] = "gone"
            return
        self._changed()
        if self._deadline is None:
            self._stop(GRACE)

    # Stopping.

    def _stop(self, grace: float) -> None:
        """TERM now, KILL when `grace` seconds have passed; asked again it only comes sooner."""
        deadline = time.monotonic() + grace
        if self._deadline is None:
            self._deadline = deadline
            self._signal_all(signal.SIGTERM)
        self._deadline = min(self._deadline, deadline)

    def _sweep(self) -> None:
        now = time.monotonic()
        if self.state["state"] == "exited":
            left = self._members()
            tired = self._killed_at is not None and now > self._killed_at + GIVE_UP
            if not left or tired:
                self.state.update(state="gone", left=[pid for pid, _ in left])
                return
        if self._deadline is not None and now >= self._deadline:
            if self._killed_at is None:
                self._killed_at = now
                self.state["killed"] = True
            self._signal_all(signal.SIGKILL)

    def _members(self) -> list[tuple[int, int]]:
        """Living processes of this program but its leader, with start times; zombies are reaped."""
        found: dict[int, tuple[str, int, int, int]] = {}
        for name in os.listdir("/proc"):  # noqa: PTH208
            if name.isdecimal() and (seen := process_stat(int(name))) is not None:
                found[int(name)] = seen
        leader = found.get(self._leader)
        reused = leader is not None and leader[3] != self.state["start_ticks"]
        mine: list[tuple[int, int]] = []
        for pid, (letter, parent, session, ticks) in found.items():
            if letter in "ZX":
                if parent == os.getpid() and pid != self._leader:
                    os.waitpid(pid, 0)
            elif pid not in (self._leader, os.getpid()) and (
                (session == self._leader and not reused) or os.getpid() in _ancestors(pid, found)
            ):
                mine.append((pid, ticks))
        return mine

    def _signal_all(self, number: int) -> None:
        if self.state["state"] not in ("exited", "gone"):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
        for pid, ticks in self._members():
            with contextlib.suppress(OSError):
                descriptor = os.pidfd_open(pid)
                try:
                    found = process_stat(pid)
                    if found is not None and found[3] == ticks:
                        signal.pidfd_send_signal(descriptor, number)
                finally:
                    os.close(descriptor)

    # Talking.

    def _accept(self) -> None:
        try:
            client, _ = self._server.accept()
        except OSError:  # it has hung up already
            return
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if struct.unpack("3i", credentials)[1] != os.getuid():
            client.close()
            return
        os.set_blocking(client.fileno(), False)
        self._clients[client.fileno()] = client
        self._watch(client.fileno(), lambda: self._command(client))
        self._tell(client)

    def _command(self, client: socket.socket) -> None:
        try:
            data = client.recv(4096)
        except OSError:
            data = b""
        if not data:
            self._hang_up(client)
            return
        for line in data.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError, ProcessLookupError):
                self._do(json.loads(line))
        self._tell(client)

    def _do(self, order: Json) -> None:
        if order["do"] == "stop":
            self._stop(float(order["grace"]))
        elif order["do"] == "signal" and self.state["state"] == "running":
            signal.pidfd_send_signal(self._pidfd, int(order["signal"]))

    def _tell(self, client: socket.socket) -> None:
        try:
            client.sendall(json.dumps(self.state).encode() + b"\n")
        except OSError:  # gone, or it does not read
            self._hang_up(client)

    def _hang_up(self, client: socket.socket) -> None:
        if self._clients.pop(client.fileno(), None) is not None:
            self._forget(client.fileno())
            client.close()

    def _changed(self) -> None:
        self.save()
        for client in list(self._clients.values()):
            self._tell(client)

    def save(self) -> None:
        path = f"{self._folder}/state.json"
        with open(f"{path}.new", "w") as file:  # noqa: PTH123
            json.dump(self.state, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{path}.new", path)  # noqa: PTH104

    def _finish(self) -> None:
        while self._output in self._readers and self._pump():
            pass
        self._changed()
        if self._ours:
            os.waitpid(self._leader, 0)
        with contextlib.suppress(OSError):
            os.unlink(self._spec["ctl"])  # noqa: PTH108


def _ancestors(pid: int, found: dict[int, tuple[str, int, int, int]]) -> Iterator[int]:
    while pid in found and pid > 1:
        pid = found[pid][1]
        yield pid


def main() -> None:
    folder = sys.argv[1]
    with open(f"{folder}/spec.json") as file:  # noqa: PTH123
        spec = json.load(file)
    lock = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(EXIT_LOCKED)
    started, report = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(report)
        os._exit(0 if os.read(started, 1) else 1)
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    errors = os.open(f"{folder}/keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target, source in ((0, null), (1, null), (2, errors)):
        os.dup2(source, target)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    keeper = Keeper(folder, spec)
    runs = keeper.start()
    os.write(report, b".")
    os.close(report)
    if runs:
        keeper.run()


if __name__ == "__main__":
    main()
