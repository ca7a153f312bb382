"""An event loop whose clock is that of a `World`: nothing takes time, and a minute passes in a moment."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nodes.links.memory import World


class _Selector(selectors.BaseSelector):
    """Where others would wait, lets the next thing in the world happen."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = self._real.select(0)
        if found or timeout == 0:
            return found
        until = None if timeout is None else self._world.now + timeout
        due = self._world.next_time
        if due is not None and (until is None or due <= until):
            self._world.step()
        elif until is not None:
            self._world.now = until
        else:
            raise RuntimeError("everybody waits for ever")
        return self._real.select(0)

    def register(
        self, fileobj: selectors._FileObject, events: int, data: object = None
    ) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: selectors._FileObject) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(
        self, fileobj: selectors._FileObject, events: int, data: object = None
    ) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[selectors._FileObject, selectors.SelectorKey]:
        return self._real.get_map()


class SteeredLoop(asyncio.SelectorEventLoop):
    """See the module. Descriptors of one process work as ever: what is written can be read at once."""

    def __init__(self, world: World) -> None:
        super().__init__(_Selector(world))
        self._steering = world

    def time(self) -> float:
        return self._steering.now


class Clock:
    """Stands in for the module `time` in modules that read the clock themselves."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.now

    def time(self) -> float:
        return 1.7e9 + self._world.now
