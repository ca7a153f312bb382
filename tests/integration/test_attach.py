"""`viscript attach` and `send`, at a terminal."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.instance import Instance, instance, until

SHELL = "stty -echo; echo ready; while read line; do echo got $line $(stty size); done; exit 9"


@pytest.fixture
def made(tmp_path) -> Iterator[Instance]:
    with instance(tmp_path / "h", up=False) as made:
        made.configure({
            "shell": {"path": "sh", "args": ["-c", SHELL], "terminal": True},
            "plain": {"path": "sleep", "args": ["1000"]},
        })  # fmt: skip
        made.run("up", "--detach")
        made.start("shell")
        until(lambda: "ready" in made.run("logs", "shell", code=None).stdout)
        yield made


# Makes standard input the terminal that signals of window sizes come from.
OWNED = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
# And never hears of them, as if they were always late.
DEAF = OWNED.replace(
    "fcntl.", "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})\nfcntl.", 1
)


class Terminal:
    """A command at a terminal of ours."""

    def __init__(self, made: Instance, *arguments: str, first: str = OWNED) -> None:
        self.fd, child = pty.openpty()
        self.size(30, 100)
        command = [sys.executable, "-c", first, "-P", "-m", "viscript.cli", *arguments]
        self.process = subprocess.Popen(
            command, env=made.environment, stdin=child, stdout=child, stderr=child,
            start_new_session=True,
        )  # fmt: skip
        os.close(child)
        self.shown = b""

    def size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, data: bytes) -> None:
        os.write(self.fd, data)

    def until(self, text: bytes) -> None:
        deadline = time.monotonic() + 15
        while text not in self.shown:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, self.shown
            self.shown += os.read(self.fd, 4096)


@contextmanager
def terminal(made: Instance, *arguments: str, first: str = OWNED) -> Iterator[Terminal]:
    opened = Terminal(made, *arguments, first=first)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        os.close(opened.fd)


def test_what_was_typed_before_it_was_attached_counts(made):
    with terminal(made, "attach", "shell") as at:
        at.type(b"hel")
        at.until(b"attached to shell")
        at.type(b"lo\r")
        at.until(b"got hello 30 100")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(made, number):
    with terminal(made, "attach", "shell") as at:
        before = termios.tcgetattr(at.fd)
        at.until(b"attached to shell")
        assert termios.tcgetattr(at.fd) != before
        at.process.send_signal(number)
        assert at.process.wait(15) == 130
        assert termios.tcgetattr(at.fd) == before


def test_the_terminal_of_an_app_is_used_and_left(made):
    with terminal(made, "attach", "shell") as at:
        at.until(b"attached to shell")
        at.type(b"hello\r")
        at.until(b"got hello 30 100")
        at.size(31, 90)
        at.type(b"sized\r")
        at.until(b"got sized 31 90")
        at.type(b"\x1d")
        at.until(b"it goes on")
        assert at.process.wait(10) == 0
    assert made.ask("la")[0]["state"] == "running"
    assert "got sized 31 90" in made.run("logs", "shell").stdout


def test_what_is_typed_after_a_resize_comes_after_it_also_when_the_signal_is_late(made):
    with terminal(made, "attach", "shell", first=DEAF) as at:
        at.until(b"attached to shell")
        at.size(31, 90)
        at.type(b"sized\r")
        at.until(b"got sized 31 90")


def test_another_may_only_look_and_the_detach_key_is_chosen(made):
    with terminal(made, "attach", "shell") as first:
        first.until(b"attached to shell")
        with terminal(made, "attach", "shell", "--detach-key", "ctrl-a") as second:
            second.until(b"another is typing")
            second.until(b"attached to shell")
            second.type(b"not this\r")
            first.type(b"but this\r")
            second.until(b"got but this")
            second.type(b"\x01")
            assert second.process.wait(10) == 0
        assert b"not this" not in first.shown


def test_it_goes_on_while_the_daemon_is_restarted_and_ends_with_the_apps_code(made):
    with terminal(made, "attach", "shell") as at:
        at.until(b"attached to shell")
        made.kill_daemon()
        at.type(b"alone\r")
        at.until(b"got alone")
        made.run("up", "--detach")
        at.type(b"\x04")
        at.until(b"exit code 9")
        assert at.process.wait(10) == 9


def test_send_types_a_line(made):
    assert "into shell" in made.run("send", "shell", "from", "afar").stdout
    until(lambda: "got from afar" in made.run("logs", "shell").stdout)
    assert made.ask("send", "shell", "--no-line", "half")["bytes"] == 4
    made.run("send", "shell", input=" whole\r")
    until(lambda: "got half whole" in made.run("logs", "shell").stdout)


def test_what_has_no_terminal_is_told_so(made):
    made.start("plain")
    assert "terminal: true" in made.run("send", "plain", "x", code=9).stderr
    assert "viscript send" in made.run("attach", "shell", code=2).stderr
    with terminal(made, "attach", "plain") as at:
        at.until(b"terminal: true")
        assert at.process.wait(10) == 9
    made.run("send", "nothing", "x", code=5)
    assert "detach-key" in made.run("attach", "shell", "--detach-key", "x", code=2).stderr
