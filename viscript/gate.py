"""Between the bus and the commands: who asks, may they, and the answer or refusal."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from bus.signals import pack, unpack
from viscript import roles
from viscript.commands.served import TABLE, Served
from viscript.errors import Denied, ViscriptError
from viscript.protocol import refuse
from viscript.recorder import asker
from viscript.roles import REMEDY, Caller

if TYPE_CHECKING:
    from bus.client import Bus, Request
    from viscript.launcher import Launcher

log = logging.getLogger(__name__)


class Gate:
    """Answers what is in the table; `owners` are the keys of the home itself, by their names."""

    def __init__(self, launcher: Launcher, owners: dict[str, str]) -> None:
        self._launcher = launcher
        self._owners = owners

    def open(self, bus: Bus) -> None:
        for served in TABLE:
            bus.answer(served.module.SUBJECT, self._handler(served))

    def caller(self, key: str) -> Caller:
        """Who has `key`; without grants if nothing is known of it."""
        if key in self._owners:
            return roles.owner(key, self._owners[key])
        return Caller(key, "")

    def _handler(self, served: Served) -> Callable[[Request], Awaitable[bytes]]:
        async def answer(request: Request) -> bytes:
            try:
                caller = self.caller(request.sender)
                _admit(caller, served)
                asked = unpack(request.body, served.module.Request)
                asker.set(caller.name or caller.key)
                return pack(await served.module.handle(self._launcher, asked, caller))
            except ViscriptError as error:
                raise refuse(error) from None

        return answer


def _admit(caller: Caller, served: Served) -> None:
    if served.scoped and caller.anywhere(served.role):
        return
    if not caller.grants:
        raise Denied(f"the key {caller.key} has no role on this host; {REMEDY}")
    caller.require_everywhere(served.role)
