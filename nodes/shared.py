"""Work that several callers want at the same time, done once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class Shared(Generic[_Key, _Value]):
    """Runs one coroutine for a key at a time; all who ask meanwhile get its outcome."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self._running: dict[_Key, asyncio.Future[_Value]] = {}

    async def get(self, key: _Key, work: Callable[[], Coroutine[None, None, _Value]]) -> _Value:
        """The outcome of `work()`, or of the same key's that runs already; raises what it raises.

        The work goes on when a caller is cancelled: others may wait for it.
        """
        future = self._running.get(key)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._running[key] = future
            self._tasks.create_task(self._run(key, work(), future))
        return await asyncio.shield(future)

    async def _run(
        self, key: _Key, work: Coroutine[None, None, _Value], future: asyncio.Future[_Value]
    ) -> None:
        try:
            future.set_result(await work)
        except asyncio.CancelledError:
            future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - handed to those who wait, not lost
            future.set_exception(error)
        finally:
            del self._running[key]


class Stopped(Exception):
    """Raised in a task group whose tasks go on for ever, to end it."""
