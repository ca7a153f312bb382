"""One app's datagrams at its node: the ports it has, and the ways to where it sends.

What there is no room for is dropped: on the way out when nothing leads there, on the way in when the app
does not read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from nodes import local
from nodes.datagrams import PortInUse
from nodes.errors import Unreachable
from nodes.wire import Code

if TYPE_CHECKING:
    from collections.abc import Callable

    from nodes.channel import Channel
    from nodes.engine import Engine
    from nodes.lane import Lane

_Value = TypeVar("_Value")
MAX_BOUND: Final = 1024  # ports of one app
MAX_TARGETS: Final = 1024  # nodes an app sends to, of which the ways are remembered
MAX_FINDING: Final = 64  # ways looked for at a time
MAX_HELD: Final = 32  # datagrams that wait for one way to be found
FIND_WITHIN: Final = 10.0  # s
FORGET_AFTER: Final = 5.0  # s after which a way that was not found is looked for again
MAX_QUEUE: Final = 1 << 20  # bytes that wait for the app, beyond which datagrams are dropped


class Host(Protocol):
    """The part of a node that apps use."""

    engine: Engine
    name: str
    tasks: asyncio.TaskGroup
    loop: asyncio.AbstractEventLoop

    async def route(self, target: str) -> Lane:
        """Find the way to a node, by name or key; raises Unreachable."""
        ...


class Posting:
    """See the module. `refused(id, code, text)` tells the app."""

    def __init__(
        self, host: Host, channel: Channel, refused: Callable[[int, Code, str], None]
    ) -> None:
        self._host = host
        self._channel = channel
        self._refused = refused
        self._ports: set[int] = set()
        self._lanes: dict[str, Lane] = {}  # by target
        self._held: dict[str, list[local.Send]] = {}  # by target whose way is looked for
        self._not_found: dict[str, float] = {}  # when
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        for port in self._ports:
            self._host.engine.datagrams.unbind(port)
        self._ports.clear()
        for task in self._tasks:
            task.cancel()

    def bind(self, message: local.Bind) -> None:
        if len(self._ports) >= MAX_BOUND:
            text = f"an app may bind {MAX_BOUND} ports"
            self._refused(message.id, Code.LIMIT, text)
            return
        try:
            port = self._host.engine.datagrams.bind(message.port, self, message.allow)
        except PortInUse:
            text = f"another app has datagram port {message.port} of node {self._host.name!r}"
            self._refused(message.id, Code.PORT_TAKEN, text)
            return
        self._ports.add(port)
        self._channel.send(local.encode(local.Bound(message.id, port)))

    def unbind(self, port: int) -> None:
        if port in self._ports:
            self._ports.discard(port)
            self._host.engine.datagrams.unbind(port)

    def datagram(self, port: int, origin: str, source: int, data: bytes) -> bool:
        """Mailbox: one came."""
        if self._channel.queued > MAX_QUEUE:
            return False
        self._channel.send(local.encode(local.Datagram(port, origin, source, data)))
        return True

    def send(self, message: local.Send) -> None:
        """Send it, or look for the way first; without a port of its own an app may send nothing."""
        engine = self._host.engine
        target = message.target
        lane = self._lanes.get(target)
        if message.port not in self._ports:
            engine.counters["datagram_not_bound"] += 1
        elif lane is not None and engine.lane(lane.peer) is lane:
            engine.send_datagram(lane, message.to, message.port, message.data)
        else:
            self._hold(message)

    def _hold(self, message: local.Send) -> None:
        target = message.target
        held = self._held.get(target)
        if held is None:
            now = self._host.loop.time()
            failed = self._not_found.get(target)
            if len(self._held) >= MAX_FINDING or (failed and now - failed < FORGET_AFTER):
                self._host.engine.counters["datagram_no_route"] += 1
                return
            held = self._held[target] = []
            task = self._host.tasks.create_task(self._find(target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if len(held) < MAX_HELD:
            held.append(message)
        else:
            self._host.engine.counters["datagram_no_room"] += 1

    async def _find(self, target: str) -> None:
        engine = self._host.engine
        try:
            async with asyncio.timeout(FIND_WITHIN):
                lane = await self._host.route(target)
        except (TimeoutError, Unreachable):
            engine.counters["datagram_no_route"] += len(self._held.pop(target))
            _remember(self._not_found, target, self._host.loop.time())
            return
        except asyncio.CancelledError:
            self._held.clear()
            raise
        self._not_found.pop(target, None)
        _remember(self._lanes, target, lane)
        for message in self._held.pop(target):
            engine.send_datagram(lane, message.to, message.port, message.data)


def _remember(where: dict[str, _Value], target: str, value: _Value) -> None:
    """Note it, and forget the oldest when there are too many."""
    where.pop(target, None)
    while len(where) >= MAX_TARGETS:
        del where[next(iter(where))]
    where[target] = value
