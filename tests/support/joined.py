"""Participants on a real broker, for tests of the asyncio client."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from bus import Bus, connect
from tests.support.broker import Broker


@contextlib.asynccontextmanager
async def joined(broker: Broker, name: str, **options: Any) -> AsyncIterator[Bus]:
    """Join as one of the broker's keys."""
    async with connect(broker.address, broker.keys[name], name=name, **options) as bus:
        yield bus


async def eventually(condition: Callable[[], object], patience: float = 10.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.01)
