"""Sends signed orders to nodes over the bus."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from bus import Bus, BusError, Refused
from nodes import api
from nodes.orders import Receiver

if TYPE_CHECKING:
    from nodes.orders import Order

PATIENCE: Final = 3.0  # s for one node to answer


class NotDone(Exception):
    """A node did not carry an order out; says which and why."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"node {key} did not take its part: {problem}")
        self.key = key


class Commands:
    """`secret` is the manager's CURVE key, with which it signs."""

    def __init__(self, bus: Bus, secret: str) -> None:
        self._bus = bus
        self._secret = secret
        self._receivers: dict[str, Receiver] = {}

    def heard(self, key: str, report: api.Registration) -> bool:
        """A node has registered; returns whether it was started anew."""
        now = time.monotonic()
        known = self._receivers.get(key)
        if known is None:
            known = Receiver(key, report.boot, report.clock, now, report.serial)
            self._receivers[key] = known
            return False
        anew = known.boot != report.boot
        known.heard(report.boot, report.clock, report.serial, now)
        return anew

    def forget(self, key: str) -> None:
        self._receivers.pop(key, None)

    async def send(self, key: str, route: str, order: Order) -> bytes:
        """Have a node do something; returns its reply. Raises NotDone."""
        try:
            try:
                return await self._ask(key, route, order)
            except Refused as error:
                if error.err != "replayed":
                    raise
                return await self._ask(key, route, order)  # a later order has overtaken this one
        except BusError as error:
            raise NotDone(key, str(error)) from None

    async def _ask(self, key: str, route: str, order: Order) -> bytes:
        receiver = self._receivers.get(key)
        if receiver is None:
            raise NotDone(key, "it is not registered here")
        signed = receiver.sign(self._secret, route, order, time.monotonic())
        return await self._bus.request(api.ORDER, api.pack(signed), to=key, timeout=PATIENCE)
