"""What apps say to each other over streams of a mesh, and whether it is what they hear."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import TYPE_CHECKING

from nodes.errors import Unreachable

if TYPE_CHECKING:
    from nodes.pump import Pump
    from nodes.wire import Code
    from tests.support.whole_mesh import Node, WholeMesh

PORT = 7


class Side:
    """One end of a conversation: an app that says its bytes and checks those that it hears."""

    def __init__(self, talk: Conversation, side: int) -> None:
        self.node = talk.nodes[side]
        self.pump: Pump | None = None
        self.code: Code | None = None
        self.due = self.sent = self.heard = 0  # bytes
        self.finish = self.finished = self.saw_end = False
        self._talk, self._side = talk, side
        self._app: socket.socket | None = None

    def attach(self, pump: Pump) -> None:
        self.pump = pump
        self._app, taken = socket.socketpair()
        self._app.setblocking(False)
        pump.attach(taken, self._talk.mesh.loop, idle=0, early=b"")

    def opened(self, pump: Pump, _reply: bytes) -> None:
        self.attach(pump)

    def declined(self, _pump: Pump, _code: int, _reply: bytes) -> None:
        raise AssertionError("nobody declines")

    def ended(self, _pump: Pump) -> None: ...

    def closed(self, _pump: Pump, code: Code) -> None:
        self.code = code
        self._talk.ended()

    @property
    def over(self) -> bool:
        return self.code is not None or not self.node.alive

    def turn(self) -> None:
        if self._app is None:
            return
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self.sent < self.due:
                piece = self._talk.piece(self._side, self.sent, self.due - self.sent)
                self.sent += self._app.send(piece)
            if self.finish and not self.finished:
                self.finished = True
                self._app.shutdown(socket.SHUT_WR)
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while not self.saw_end:
                data = self._app.recv(65_536)
                self.saw_end = not data
                while data:
                    wanted = self._talk.piece(1 - self._side, self.heard, len(data))
                    assert data.startswith(wanted), f"byte {self.heard} and on is not what was sent"
                    self.heard += len(wanted)
                    data = data[len(wanted) :]

    def close(self) -> None:
        if self._app is not None:
            self._app.close()
            self._app = None


class Conversation:
    """A stream between two nodes, and what each says to the other."""

    def __init__(self, mesh: WholeMesh, number: int, near: Node, far: Node) -> None:
        self.mesh, self.number = mesh, number
        self.nodes = near, far
        draw = random.Random(number)
        self._bytes = [draw.randbytes(65_521) for _ in range(2)]  # said again and again
        self.near, self.far = Side(self, 0), Side(self, 1)
        self.problem = ""
        self.trouble = (
            mesh.world.now
        )  # when the last time something was wrong: tests.support.troubles
        self.over_at: float | None = None
        self.task = mesh.loop.create_task(self._begin())

    async def _begin(self) -> None:
        near, far = self.nodes
        try:
            lane = await near.control.route(far.key)
        except Unreachable as error:
            self.problem = str(error)
            self.ended()
            return
        if near.alive:
            greeting = str(self.number).encode()
            self.near.pump = near.engine.open(lane, PORT, greeting, self.near)

    def asked(self, node: Node, pump: Pump, origin: str) -> None:
        assert origin == self.nodes[0].key
        if self.far.pump is not None:
            # Nobody has answered the first OPEN in time: it came in a session that is over.
            assert self.far.over, "an OPEN came twice"
            assert self.near.heard == 0
            due, finish = self.far.due, self.far.finish
            self.far.close()
            self.far = Side(self, 1)
            self.far.due, self.far.finish = due, finish
        self.far.node = node
        pump.holder = self.far
        node.engine.accept(pump, b"")
        self.far.attach(pump)

    def ended(self) -> None:
        """It is over at an end, or never began."""
        if self.over_at is None:
            self.over_at = self.mesh.world.now

    def piece(self, side: int, at: int, size: int) -> bytes:
        data = self._bytes[side]
        return data[at % len(data) :][: min(size, 16_384)]

    def say(self, side: int, size: int) -> None:
        (self.near, self.far)[side].due += size

    def hang_up(self) -> None:
        """Both have said all, and will end when they have heard all."""
        self.near.finish = self.far.finish = True

    def turn(self) -> None:
        self.near.turn()
        self.far.turn()

    @property
    def over(self) -> bool:
        """Nothing more is to come of it at either end."""
        return bool(self.problem) or ((self.near.over) and (self.far.over or self.far.pump is None))

    @property
    def complete(self) -> bool:
        """All that was said was heard, both ways."""
        return self.near.due == self.far.heard and self.far.due == self.near.heard
