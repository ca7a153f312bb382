"""How the daemon of a host that has joined comes onto the bus: its address is known, its broker elsewhere."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from bus.client import Bus, connect
from bus.errors import NotAuthorised, Unreachable
from bus.identity import Address, KeyPair
from viscript.errors import Denied, NoDaemon

PAUSE = 0.5  # seconds between two tries


async def dial(address: Address, key: KeyPair, stack: AsyncExitStack, patience: float) -> Bus:
    """The bus of the cluster; `NoDaemon` when it is not reached for `patience` seconds, `Denied`."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return await stack.enter_async_context(
                connect(address, key, name="viscript", timeout=2.0)
            )
        except NotAuthorised:
            raise Denied(
                f"the cluster at {address.endpoint} does not let this host in: it was revoked, or removed. "
                "What runs here goes on. Its admin invites it again: viscript host invite; "
                "or end what runs here: viscript down"
            ) from None
        except Unreachable as error:
            if time.monotonic() >= deadline:
                raise NoDaemon(
                    f"the cluster's broker does not answer: {error}; what runs here goes on. Is its host up "
                    "and the way to it open? Then: viscript up"
                ) from None
        await asyncio.sleep(PAUSE)
