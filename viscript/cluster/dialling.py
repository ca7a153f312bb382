"""How the daemon of a host that has joined comes onto the bus: its address is known, its broker elsewhere."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

from bus.client import Bus
from bus.errors import NotAuthorised, Unreachable
from bus.identity import Address, KeyPair
from viscript.errors import Denied

log = logging.getLogger(__name__)


async def dial(address: Address, key: KeyPair, stack: AsyncExitStack, patience: float) -> Bus:
    """The bus of the cluster; `Denied` when it does not let us in.

    Not reached for `patience` seconds, it is given all the same: it goes on trying, and what runs here does
    not wait for that.
    """
    bus = Bus(address, key, "viscript")
    stack.push_async_callback(bus.close)
    try:
        await bus.open(patience)
    except NotAuthorised:
        raise Denied(
            f"the cluster at {address.endpoint} does not let this host in: it was revoked, or removed. "
            "What runs here goes on. Its admin invites it again: viscript host invite; "
            "or end what runs here: viscript down"
        ) from None
    except Unreachable as error:
        log.warning("the cluster's broker does not answer: %s; tried again until it does", error)
    return bus
