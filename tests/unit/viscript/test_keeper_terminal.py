"""A program in a terminal of its own: who looks, who types, and what a killed keeper does to it."""

import base64
import json
import select
import socket
import time

from tests.support.keeping import Folder
from viscript import processes

SHELL = "stty -echo; echo ready; while read line; do echo got $line $(stty size); done; exit 9"


class Viewer:
    """Attached to a keeper."""

    def __init__(self, folder: Folder) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(folder.ctl))
        self._socket.settimeout(10)
        self._lines = self._socket.makefile("rb")
        self.out = b""

    def order(self, **order: object) -> None:
        self._socket.sendall(json.dumps(order).encode() + b"\n")

    def type(self, text: bytes) -> None:
        self.order(do="write", data=base64.b64encode(text).decode())

    def next(self, name: str) -> dict:
        """The next thing told in which there is `name`; what is printed meanwhile is kept."""
        while True:
            told = json.loads(self._lines.readline())
            self.out += base64.b64decode(told.get("out", ""))
            if name in told:
                return told

    def until(self, text: bytes) -> None:
        while text not in self.out:
            self.next("out")

    def attach(self, *, write: bool = True, rows: int = 24, columns: int = 80) -> dict:
        self.order(do="attach", write=write, rows=rows, columns=columns)
        while True:
            told = json.loads(self._lines.readline())
            if "attached" in told or "refused" in told:
                self.out += base64.b64decode(told.get("out", ""))
                return told

    def read_on(self) -> bool:
        """Take what is there, without a look at it; False when it was hung up on."""
        return bool(self._socket.recv(1 << 20))

    @property
    def is_cut_off(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def hear_out(self) -> int:
        """Until it is hung up on; how many bytes were still told."""
        try:
            return len(self._lines.read())
        except ConnectionResetError:
            return 0

    def leave(self) -> None:
        self._lines.close()
        self._socket.close()


def test_what_is_typed_is_read_and_what_is_printed_is_shown_and_logged(folder):
    folder.shell(SHELL, terminal=True)
    viewer = Viewer(folder)
    assert viewer.attach(rows=33, columns=101)["writer"]
    viewer.type(b"hello\r")
    viewer.until(b"got hello 33 101")
    viewer.order(do="resize", rows=44, columns=99)
    viewer.type(b"again\r")
    viewer.until(b"got again 44 99")
    viewer.type(b"\x04")
    assert folder.wait("gone").code == 9
    assert "got again 44 99" in folder.log.read_text()
    viewer.leave()


def test_who_comes_later_sees_what_was_printed_and_one_types_at_a_time(folder):
    folder.shell(SHELL, terminal=True)
    first, second, third = Viewer(folder), Viewer(folder), Viewer(folder)
    assert not first.attach(write=False)["writer"]
    assert second.attach()["writer"]
    second.type(b"one\r")
    second.until(b"got one")
    first.until(b"got one")
    assert not third.attach()["writer"]
    assert b"got one" in third.out
    third.type(b"two\r")
    assert third.next("refused")["refused"] == "another is typing"
    second.leave()
    while processes.read_report(folder.path).writer:
        time.sleep(0.01)
    assert third.attach()["writer"]
    third.type(b"three\r")
    first.until(b"got three")
    assert b"two" not in first.out
    for viewer in (first, third):
        viewer.leave()


def test_a_viewer_that_does_not_read_is_cut_off_and_the_program_is_not(folder):
    folder.shell("stty -echo; read x; while :; do echo 0123456789012345678901234567890123456789; done",
                 terminal=True)  # fmt: skip
    slow, quick = Viewer(folder), Viewer(folder)
    slow.attach(write=False)
    quick.attach()
    quick.type(b"go\r")
    deadline = time.monotonic() + 20
    while not slow.is_cut_off or folder.log.stat().st_size < 4 << 20:
        assert quick.read_on()
        assert time.monotonic() < deadline
    assert slow.hear_out() < 4 << 20
    for viewer in (slow, quick):
        viewer.leave()


def test_it_keeps_its_terminal_when_its_keeper_is_killed(folder):
    first = folder.shell(SHELL, terminal=True)
    folder.until("ready")
    folder.kill_keeper(first)
    assert processes.look(folder.path)[0] is processes.Fate.ORPHANED
    second = folder.spawn(adopt=processes.read_report(folder.path))
    assert second.pid == first.pid
    viewer = Viewer(folder)
    assert viewer.attach()["writer"]
    viewer.type(b"still here\r")
    viewer.until(b"got still here")
    viewer.leave()


def test_without_a_terminal_there_is_nothing_to_attach_to(folder):
    folder.spawn("/bin/sleep", "100")
    viewer = Viewer(folder)
    assert viewer.attach()["refused"] == "it has no terminal"
    viewer.type(b"x")
    assert viewer.next("refused")["refused"] == "it has no terminal"
    viewer.leave()
