"""Keeps one running program: owns its processes, its output and its exit code, and outlives the daemon.

Its FOLDER holds:

* `spec.json`: what runs, with which rules; a keeper that takes over finds them there. The environment is
  nowhere on disk. It is locked for as long as this keeper lives, so there is never a second one.
* `state.json`: what is known, replaced in whole at every change. While a program is begun there is none until
  its pid is known; if its keeper is killed meanwhile, it is found by the mark of `spec.json`.
* `output`: the FIFO that the program prints into and holds open itself.

Orders over the unix socket `ctl` (same user only) and what is told there: `viscript.keeping.orders`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from viscript.keeping import PROTO, files, kernel, orders
from viscript.keeping.child import Identity
from viscript.keeping.log import Log
from viscript.keeping.notify import Notify
from viscript.keeping.output import Output, Pipe, Terminal, nothing
from viscript.keeping.start import StartProblem, spawn
from viscript.keeping.stopping import Stopping
from viscript.keeping.visitors import Visitor

GIVE_UP = (
    5.0  # seconds after KILL; what is in an uninterruptible wait is then reported, not waited for
)
SWEEPS = (0.02, 0.5)  # seconds between two looks at /proc while processes end: at first, at most
MAX_VISITORS = 64
AS_NOW = ("pid", "start_ticks", "started", "mark", "master", "ready", "status")

Json = dict[str, Any]


class Keeper:
    """One program from its start to the end of its last process."""

    def __init__(self, folder: str, spec: Json) -> None:
        self._folder = folder
        self.spec = spec
        self._ours = spec["adopt"] is None
        self._poll = select.poll()
        self._readers: dict[int, Callable[[], object]] = {}
        self._visitors: dict[int, Visitor] = {}
        self._log: Log
        self.output: Output = nothing
        self._notify: Notify | None = None
        self._uid = os.getuid()
        self._stopping = Stopping(spec["stop"])
        self._sweep_at = self._pause = 0.0
        self.state: Json = {
            "proto": PROTO, "id": spec["id"], "generation": spec["generation"], "state": "starting",
            "pid": None, "start_ticks": None, "boot_id": kernel.boot_id(),
            "keeper_pid": os.getpid(), "code": None, "signal": None, "errno": None, "error": None,
            "killed": False, "started": time.time(), "ended": None, "left": [], "ready": False,
            "status": "", "watchdog": None, "extended": None, "dropped": 0, "writer": False,
            "mark": spec.get("mark", ""), "master": None,
        }  # fmt: skip

    # Starting.

    def start(self, env: dict[str, str]) -> bool:
        """Run or take over the program; False when it could not be started, as the state says."""
        try:
            if self._ours:
                self._log = _log(self.spec)
                self._spawn(env)
            else:
                self._log = Log(self.spec["log"], self.spec["rule"])  # else another keeper tries
                self._take_over()
        except StartProblem as problem:
            self.state.update(state="failed", errno=problem.errno, error=problem.text)
            self.save(lasting=True)
            return False
        # Before anybody is told of us: until then it would end the keeper and leave the program.
        signal.signal(signal.SIGTERM, lambda *_: self.stop(None))
        self._listen()
        if not self._ours:  # else it is written down since before the program began
            self.save()
        return True

    def _spawn(self, env: dict[str, str]) -> None:
        try:
            who = Identity(self.spec["user"], self.spec["group"])
            path = f"{self._folder}/output"
            self.output = Terminal.make() if self.spec["terminal"] else Pipe.make(path)
        except OSError as problem:
            raise StartProblem.of(problem) from None
        self._open_notify(who)
        marked = {**env, **who.environment, "VISCRIPT_MARK": self.state["mark"]}
        if self._notify is not None:
            marked["NOTIFY_SOCKET"] = self._notify.path
        if self.spec["terminal"]:
            marked.setdefault("TERM", "xterm-256color")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._folder}/state.json")  # noqa: PTH108 - of the run before
        self._reserve()
        self._leader = spawn(self.spec, marked, who, self.output, self._begun)
        self._watch_leader()

    def _begun(self, pid: int) -> None:
        """It runs, or is forked and waits until this is written down."""
        found = kernel.process_stat(pid)
        master = self.output.spare if self.spec["terminal"] else None
        ticks = found[3] if found else None
        self.state.update(state="running", pid=pid, start_ticks=ticks, master=master)
        self.save(must=True)

    def _take_over(self) -> None:
        wanted = self.spec["adopt"]
        self.state |= {name: wanted[name] for name in AS_NOW if name in wanted}
        self._leader = wanted["pid"]
        found = kernel.process_stat(self._leader)
        if found is not None and found[3] == wanted["start_ticks"] and found[0] not in "ZX":
            self._watch_leader()
            self.state["state"] = "running"
            self.output = self._find_output()
        elif self.members():  # it has ended, what it left has not
            self.state.update(state="exited", ended=time.time())
            self.output = Pipe.find(f"{self._folder}/output", None)
            self.stop(None)
        else:
            raise StartProblem(3, "the process has ended")
        self._open_notify(Identity(self.spec["user"], ""))
        if self.output.fileno() >= 0:
            self._watch(self.output.fileno(), self._pump)

    def _find_output(self) -> Output:
        if self.state["master"] is not None:
            return Terminal.find(self._pidfd, self.state["master"])
        return Pipe.find(f"{self._folder}/output", self._leader)

    def _watch_leader(self) -> None:
        self._pidfd = os.pidfd_open(self._leader)
        self._watch(self._pidfd, self._leader_ended)
        if self._ours:
            self._watch(self.output.fileno(), self._pump)

    def _open_notify(self, who: Identity) -> None:
        if not self.spec["notify"]:
            return
        path = f"{self.spec['ctl'].removesuffix('.ctl')}.notify"
        if who.is_another:
            self._uid, path = who.uid, f"@viscript-{self.state['mark']}"
        self._notify = Notify(path)
        self._watch(self._notify.fileno(), self._hear_notice)

    def _listen(self) -> None:
        path = self.spec["ctl"]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - we hold the lock, so it is nobody's
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._server.bind(path)
        os.chmod(path, 0o600)  # noqa: PTH101
        self._server.listen(16)
        self._watch(self._server.fileno(), self._accept)

    # Running.

    def run(self) -> None:
        """Until the last process has ended."""
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._watch(read, lambda: self._reap(read))
        while self.state["state"] != "gone":
            for fd, _ in self._poll.poll(self._patience()):
                if fd in self._readers:
                    self._readers[fd]()
            self._log.pack()
            self._turn(time.monotonic())
        self._finish()

    def _patience(self) -> float | None:
        """Milliseconds until there is something to do that no descriptor tells of."""
        if self._log.packing:
            return 0
        due = [self._stopping.due] if self._stopping.due is not None else []
        if self.state["state"] == "exited":
            due.append(self._sweep_at)
        return max(0.0, min(due) - time.monotonic()) * 1000 + 1 if due else None

    def _turn(self, now: float) -> None:
        if self.state["state"] == "exited" and now >= self._sweep_at:
            left = self.members()
            if not left or self._stopping.hopeless(now, GIVE_UP):
                self.state.update(state="gone", left=[pid for pid, _ in left])
                return
            self._pause = min(SWEEPS[1], 2 * self._pause or SWEEPS[0])
            self._sweep_at = now + self._pause
        number = self._stopping.next_signal(now)
        if number is not None:
            self.state["killed"] = self._stopping.killing
            self.signal_all(number)

    def _watch(self, fd: int, reader: Callable[[], object]) -> None:
        self._readers[fd] = reader
        self._poll.register(fd, select.POLLIN)

    def _forget(self, fd: int) -> None:
        if self._readers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _pump(self) -> bool:
        """Some of the program's output into the log; False when there is none now."""
        dropped = self._log.dropped
        shown = self.output.move(self._log)
        if self._log.dropped != dropped:
            self.state["dropped"] = self._log.dropped
        if shown is None:
            return False
        if shown:
            for visitor in [x for x in self._visitors.values() if x.viewer]:
                self._say(visitor, self.output.as_shown(shown))
        elif self.output.ended:
            self._forget(self.output.fileno())
            return False
        return True

    def _hear_notice(self) -> None:
        assert self._notify is not None  # noqa: S101 - watched only if it is there
        news = self._notify.read(self._uid, time.time())
        if "extended" in news:
            until = time.monotonic() + news["extended"]
            news["extended"] = until
            self._stopping.extend(until)
        if any(self.state[name] != value for name, value in news.items()):
            self.state |= news
            self.changed()

    def _reap(self, wakeup: int) -> None:
        """Reap orphans that became ours. The leader stays a zombie, so its pid cannot be reused."""
        with contextlib.suppress(BlockingIOError):
            os.read(wakeup, 512)
        kind = os.WEXITED | os.WNOHANG | os.WNOWAIT
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, kind)) and ended.si_pid != self._leader:
                os.waitpid(ended.si_pid, 0)

    def _leader_ended(self) -> None:
        self._forget(self._pidfd)
        self.state["code"], self.state["signal"] = self._exit()
        self.state.update(state="exited", ended=time.time(), ready=False)
        # Without a look at all processes of the machine, where there is nothing to find.
        if (self._ours and kernel.is_only_child(self._leader)) or not self.members():
            self.state["state"] = "gone"
            return
        self.changed()
        if not self._stopping.begun:
            self.stop(None)

    def _exit(self) -> tuple[int | None, int | None]:
        """Code and signal, as far as they are told of what is not our child."""
        if not self._ours:
            found = kernel.exit_of(self._leader, self.state["start_ticks"], self._pidfd)
            return found or (None, None)
        ended = os.waitid(os.P_PID, self._leader, os.WEXITED | os.WNOWAIT)
        assert ended is not None  # noqa: S101 - without WNOHANG there is a result
        exited = ended.si_code == os.CLD_EXITED
        return (ended.si_status, None) if exited else (None, ended.si_status)

    # Stopping.

    def stop(self, steps: list[tuple[int, float]] | None) -> None:
        """The steps, else those of the spec, then KILL; asked again it only comes sooner."""
        self._stopping.ask(steps, time.monotonic())

    def members(self) -> list[tuple[int, int]]:
        mark = "" if self._ours else self.state["mark"]
        ticks = self.state["start_ticks"]
        return kernel.members(self._leader, ticks, keeper=os.getpid(), mark=mark)

    def signal_leader(self, number: int) -> None:
        if self.state["state"] == "running":
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def signal_all(self, number: int) -> None:
        """To every process of the program; what was stopped goes on to hear it."""
        numbers = (
            [number] if number in (signal.SIGKILL, signal.SIGSTOP) else [number, signal.SIGCONT]
        )
        for each in numbers:
            self.signal_leader(each)
        if number == signal.SIGKILL and self._ours:
            with contextlib.suppress(
                OSError
            ):  # our zombie at least has the number, so it is nobody's
                os.killpg(self._leader, number)
        for pid, ticks in self.members():
            for each in numbers:
                kernel.send(pid, ticks, each)

    # Talking.

    def _accept(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:  # it has hung up already
            return
        visitor = Visitor(connection)
        if not visitor.is_owner or len(self._visitors) >= MAX_VISITORS:
            visitor.close()
            return
        self._visitors[visitor.fileno()] = visitor
        self._watch(visitor.fileno(), lambda: self._hear(visitor))
        self._say(visitor, self.state)

    def _hear(self, visitor: Visitor) -> None:
        if visitor.waits:
            visitor.flush()
            self._mind(visitor)
        given = visitor.orders()
        if given is None:
            self._hang_up(visitor)
            return
        for order in given:
            answer: Json = {}
            with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, OSError):
                answer = orders.carry_out(self, visitor, order)
            self._say(visitor, answer or self.state)

    @property
    def writer(self) -> Visitor | None:
        return next((x for x in self._visitors.values() if x.writer), None)

    def _say(self, visitor: Visitor, value: Json) -> None:
        if not visitor.tell(value):
            self._hang_up(visitor)
        else:
            self._mind(visitor)

    def _mind(self, visitor: Visitor) -> None:
        """Wake also when it can be told the rest."""
        wanted = select.POLLIN | (select.POLLOUT if visitor.waits else 0)
        if visitor.fileno() in self._readers:
            self._poll.modify(visitor.fileno(), wanted)

    def _hang_up(self, visitor: Visitor) -> None:
        if self._visitors.pop(visitor.fileno(), None) is not None:
            self._forget(visitor.fileno())
            visitor.close()
            if visitor.writer:
                self.changed()

    def changed(self) -> None:
        self.state["writer"] = self.writer is not None
        self.save()
        for visitor in list(self._visitors.values()):
            self._say(visitor, self.state)

    def _reserve(self) -> None:
        """If there is no room for its pid to be written down, it does not begin."""
        try:
            files.write(f"{self._folder}/state.json.new", json.dumps(self.state).encode())
        except OSError as problem:
            raise StartProblem.of(problem) from None

    def save(self, *, lasting: bool = False, must: bool = False) -> None:
        """`lasting`: through a power cut too, after which nothing else of it counts; `must`: or `OSError`."""
        path = f"{self._folder}/state.json"
        try:
            files.write(f"{path}.new", json.dumps(self.state).encode(), lasting=lasting)
            os.rename(f"{path}.new", path)  # noqa: PTH104
        except OSError:
            if must:
                raise

    def _finish(self) -> None:
        while self.output.fileno() in self._readers and self._pump():
            pass
        self._log.close()
        self.save(lasting=True)
        self.changed()
        if self._ours:
            os.waitpid(self._leader, 0)
        if self._notify is not None:
            self._notify.close()
        with contextlib.suppress(OSError):
            os.unlink(self.spec["ctl"])  # noqa: PTH108


def _log(spec: Json) -> Log:
    try:
        return Log(spec["log"], spec["rule"])
    except OSError as problem:
        raise StartProblem(problem.errno or 5, f"{spec['log']}: {problem.strerror}") from None
