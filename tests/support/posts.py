"""Datagrams between nodes of a mesh: each arrives once or never, where and as it was sent."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from nodes.errors import Unreachable
from tests.support.talks import PORT

if TYPE_CHECKING:
    from tests.support.whole_mesh import Node, WholeMesh

_BYTES = random.Random(1).randbytes(60_000)


class Box:
    """The mailbox of a node."""

    def __init__(self, post: Post, key: str) -> None:
        self._post = post
        self._key = key

    def datagram(self, port: int, origin: str, source: int, data: bytes) -> bool:
        assert (port, source) == (PORT, PORT)
        self._post.arrive(self._key, origin, data)
        return True


class Post:
    """All that was sent in one mesh."""

    def __init__(self, mesh: WholeMesh) -> None:
        self.mesh = mesh
        self.sent: list[tuple[str, str, int]] = []  # from, to, how many bytes
        self.arrived: set[int] = set()

    def send(self, near: Node, far: Node, size: int) -> int:
        """Returns the number of the datagram."""
        self.sent.append((near.key, far.key, size))
        number = len(self.sent) - 1
        self.mesh.loop.create_task(self._send(near, far, number, size))
        return number

    async def _send(self, near: Node, far: Node, number: int, size: int) -> None:
        try:
            lane = await near.control.route(far.key)
        except Unreachable:
            return
        if near.alive:
            data = number.to_bytes(4, "big") + _BYTES[:size]
            near.engine.send_datagram(lane, PORT, PORT, data)

    def arrive(self, key: str, origin: str, data: bytes) -> None:
        number = int.from_bytes(data[:4], "big")
        assert self.sent[number] == (origin, key, len(data) - 4), "not where it was sent to"
        assert data[4:] == _BYTES[: len(data) - 4], "not as it was sent"
        assert number not in self.arrived, "a datagram came twice"
        self.arrived.add(number)
