"""`viscript attach APP`: the terminal of an app in ours, until the detach key or its end.

The daemon decides who may and writes it down; then the command line talks to the keeper itself, so that a
session outlives the daemon. Several may look, one types.
"""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from viscript.commands.send import with_terminal
from viscript.errors import BadUsage, Conflict, Failed, NoDaemon
from viscript.output import note
from viscript.roles import Role
from viscript.terminal import endings, handled
from viscript.words import clean

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.attach"
# What an app may have switched on and a shell does not want: other screen, mouse, paste marks, no cursor.
RESET = b"\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?25h\x1b[0m\r\n"
MAX_LINE = 1 << 20


class Request(Struct):
    target: str


class Reply(Struct):
    id: int
    app: str
    ctl: str  # the keeper's socket, on the host of the app


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Reply:
    record = launcher.resolve(request.target)
    caller.require(Role.OPERATE, record)
    with_terminal(launcher, record)
    return Reply(record.id, record.app, str(launcher.home.ctl(record.id)))


def key_of(text: str) -> bytes:
    """`ctrl-]` or `^]` as the byte that it sends; `BadUsage`."""
    name = text.lower().removeprefix("ctrl-").removeprefix("^")
    if name == text.lower() or len(name) != 1 or not "@" <= name.upper() <= "_":
        raise BadUsage(f"--detach-key {text!r}: write ctrl- and a letter or one of @[\\]^_")
    return bytes([ord(name.upper()) & 0x1F])


def run(client: Client, target: str, key: bytes, *, read_only: bool) -> int:
    """The exit code: 0 when detached, else that of the app, which has ended."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadUsage("attach needs a terminal; to type without one: viscript send APP TEXT")
    if client.known is not None:
        from viscript.commands import fleet

        there, what = fleet.holder(client, target)
        if there.host:
            raise BadUsage(
                f"{what} is on {there.host}, and attach works on the app's own host; there: "
                f"viscript attach {what}; from here: viscript logs -f "
                f"{there.host}:{what}, viscript send {there.host}:{what} TEXT"
            )
    reply = client.ask(SUBJECT, Request(target), Reply)
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(reply.ctl)
        except OSError as problem:
            raise NoDaemon(
                f"{reply.ctl}: {problem.strerror}; attach works on the app's own host"
            ) from None
        session = _Session(connection, f"{reply.app} (ID {reply.id})", key)
        return session.run(read_only=read_only)


class _Session:
    """Bytes both ways between our terminal and a keeper."""

    def __init__(self, connection: socket.socket, name: str, key: bytes) -> None:
        self._connection = connection
        self._name = name
        self._key = key
        self._heard = b""
        self._writer = False
        self._state: dict[str, Any] = {}
        self._told: dict[str, int] = {}  # our size

    def run(self, *, read_only: bool) -> int:
        self._told = self._size()
        self._order(do="attach", write=not read_only, **self._told)
        self._until_attached()
        with _raw(), _woken_by_resize() as resized:
            if not read_only and not self._writer:
                self._remark(f"another is typing in {self._name}: you only look")
            self._remark(f"attached to {self._name}; {self._name_of_key()} leaves it running")
            ended = self._exchange(resized)
        sys.stdout.buffer.write(RESET)
        sys.stdout.flush()
        if not ended:
            note(f"detached from {self._name}; it goes on")
            return 0
        code, number = self._state.get("code"), self._state.get("signal")
        note(f"{self._name} has ended: {f'signal {number}' if number else f'exit code {code}'}")
        return 128 + number if number else code or 0

    def _until_attached(self) -> None:
        while True:
            for told in self._hear():
                if "refused" in told:
                    raise Conflict(f"{self._name}: {told['refused']}")
                if told.get("attached"):
                    self._writer = bool(told["writer"])
                    self._show(told)
                    return
                self._state = told

    def _exchange(self, resized: int) -> bool:
        """Whether the app has ended; False: it was detached from."""
        keyboard = sys.stdin.fileno()
        while self._state.get("state") not in ("exited", "gone"):
            ready, _, _ = select.select([keyboard, self._connection, resized], [], [])
            if resized in ready:
                os.read(resized, 512)
            if resized in ready or keyboard in ready:  # what is typed is meant for what is seen
                self._tell_size()
            if self._connection in ready:
                for told in self._hear():
                    if "out" in told:
                        self._show(told)
                    elif "state" in told:
                        self._state = told
            if keyboard in ready and not self._type(os.read(keyboard, 1024)):
                return False
        return True

    def _tell_size(self) -> None:
        size = self._size()
        if size != self._told:
            self._told = size
            self._order(do="resize", **size)

    def _type(self, data: bytes) -> bool:
        """False when the detach key was pressed, or the terminal is gone."""
        before, key, _ = data.partition(self._key)
        if before and self._writer:
            self._order(do="write", data=base64.b64encode(before).decode())
        return bool(data) and not key

    def _hear(self) -> Iterator[dict[str, Any]]:
        data = self._connection.recv(1 << 16)
        if not data:
            raise Failed(f"the keeper of {self._name} is gone; the app goes on; attach again")
        *lines, self._heard = (self._heard + data).split(b"\n")
        if len(self._heard) > MAX_LINE:
            raise Failed(f"the keeper of {self._name} says what is not understood")
        for line in lines:
            yield json.loads(line)

    def _show(self, told: dict[str, Any]) -> None:
        # As it is: to steer this terminal is what it was attached for.
        sys.stdout.buffer.write(base64.b64decode(told["out"]))
        sys.stdout.flush()

    def _remark(self, text: str) -> None:
        """On a terminal that is raw already."""
        sys.stderr.write(f"{clean(text)}\r\n")
        sys.stderr.flush()

    def _name_of_key(self) -> str:
        return f"ctrl-{chr(self._key[0] | 0x40).lower()}"

    def _order(self, **order: object) -> None:
        self._connection.sendall(json.dumps(order).encode() + b"\n")

    def _size(self) -> dict[str, int]:
        found = os.get_terminal_size(sys.stdout.fileno())
        return {"rows": found.lines or 24, "columns": found.columns or 80}


@contextmanager
def _raw() -> Iterator[None]:
    """Keys as they are pressed; put back whatever happens."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    with handled(endings()):
        try:
            tty.setraw(fd, termios.TCSADRAIN)  # what was typed already counts
            yield
        finally:
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def _woken_by_resize() -> Iterator[int]:
    """A descriptor that can be read when the window's size has changed."""
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with handled({signal.SIGWINCH: lambda *_: os.write(write, b".")}):
            yield read
    finally:
        os.close(read)
        os.close(write)
