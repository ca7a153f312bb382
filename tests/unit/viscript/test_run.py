"""`viscript run` at the moment of Ctrl-C: what it has begun is known, and shut down over a sound session."""

import os
import signal
from contextlib import contextmanager

from viscript.commands import order, run, wait
from viscript.home import Home
from viscript.protocol import Job, Step
from viscript.records import ExitInfo, Status

ENDED = Status(
    id=7, app="mine", state="exited", key="k", since=1.0, args=[], started=1.0,
    exit=ExitInfo(0, None, "stopped"),
)  # fmt: skip
JOB = Job(3, "run", "working", "cli", "k", 1.0, steps=[Step("mine", id=7)])


class Daemon:
    """One session with it; Ctrl-C comes while it answers the question `interrupts`."""

    host = ""  # our own

    def __init__(self, interrupts: str = "") -> None:
        self.interrupts = interrupts
        self.asked: list[str] = []
        self.others: list[Daemon] = []

    def ask(self, subject: str, request: object, kind: type, timeout: float = 5.0):
        self.asked.append(subject)
        if subject == self.interrupts:
            os.kill(os.getpid(), signal.SIGINT)
        if kind is wait.Reply:
            return wait.Reply([ENDED])
        return order.Reply(JOB)

    @contextmanager
    def renewed(self):
        self.others.append(Daemon())
        yield self.others[-1]


def foreground(tmp_path, daemon: Daemon) -> int:
    request = run.Request(select=[], name="mine", argv=["sleep", "9"], cwd="/")
    return run.foreground(Home(tmp_path), daemon, request)  # type: ignore[arg-type]


def test_an_interrupted_session_is_not_gone_on_with(tmp_path):
    daemon = Daemon(interrupts=wait.SUBJECT)
    assert foreground(tmp_path, daemon) == 130
    assert daemon.asked == [run.SUBJECT, wait.SUBJECT]
    assert daemon.others[0].asked == ["viscript.stop", wait.SUBJECT]


def test_control_c_before_the_answer_shuts_down_what_was_begun(tmp_path):
    daemon = Daemon(interrupts=run.SUBJECT)
    assert foreground(tmp_path, daemon) == 130
    assert daemon.others[0].asked[0] == "viscript.stop"


def test_without_control_c_it_ends_as_the_program_did(tmp_path):
    assert foreground(tmp_path, Daemon()) == 0
