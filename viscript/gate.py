"""Between the bus and the commands: who asks, may they, and the answer. All of it is written down."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bus.errors import Refused
from bus.signals import pack, unpack
from viscript import audit, roles, rolesfile
from viscript.audit import AuditLog
from viscript.cluster import people
from viscript.commands.served import TABLE, Served
from viscript.errors import ViscriptError
from viscript.protocol import refuse
from viscript.recorder import asker
from viscript.roles import Caller, Policy

if TYPE_CHECKING:
    from bus.client import Bus, Request
    from viscript.cluster.registry import RoleName
    from viscript.home import Home
    from viscript.launcher import Launcher

log = logging.getLogger(__name__)


class Gate:
    """Answers what is in the table; `owners` are the keys of the home itself, by their names."""

    def __init__(
        self, launcher: Launcher, home: Home, owners: dict[str, str], grant: RoleName = "admin"
    ) -> None:
        self._launcher = launcher
        self._grant = grant  # to people of other hosts of the cluster, at most
        self._owners = owners
        self._roles = Roles(home.roles)
        self._audit = AuditLog(home.audit)

    def open(self, bus: Bus) -> None:
        for served in TABLE:
            bus.answer(served.module.SUBJECT, self._handler(served))

    def close(self) -> None:
        self._audit.close()

    def caller(self, key: str) -> Caller:
        """Who has `key`; without grants if nothing is known of it."""
        if key in self._owners:
            return roles.owner(key, self._owners[key])
        policy = self._roles.policy()
        if policy is None:
            return Caller(key, "")
        known = roles.caller(policy, key)
        directory = self._launcher.directory
        if known.grants or directory is None:
            return known
        return people.caller(directory, self._launcher.place.launcher, self._grant, key) or known

    def _handler(self, served: Served) -> Callable[[Request], Awaitable[bytes]]:
        async def answer(request: Request) -> bytes:
            caller = self.caller(request.sender)
            asker.set(caller.shown)
            asked: Any = None
            try:
                _admit(caller, served)
                asked = unpack(request.body, served.module.Request)
                reply = await served.module.handle(self._launcher, asked, caller)
            except ViscriptError as error:
                self._note(served, caller, asked, error.name, str(error))
                raise refuse(error) from None
            except Refused as error:  # it is no request
                self._note(served, caller, asked, "usage", str(error))
                raise
            except Exception as error:
                self._note(served, caller, asked, "failed", type(error).__name__)
                raise
            self._note(served, caller, asked, "ok", "", getattr(reply, "job", None))
            return pack(reply)

        return answer

    def _note(
        self,
        served: Served,
        caller: Caller,
        asked: object,
        result: str,
        text: str,
        job: object = None,
    ) -> None:
        number = getattr(job, "job", None)
        often = served.audited or result == "denied"
        write = self._audit.write if often else self._audit.write_seldom
        write(
            audit.Line(
                audit.now(), caller.key, caller.name, served.module.SUBJECT, audit.shown(asked),
                result, text[: audit.MAX_ASKED], number if isinstance(number, int) else None,
            )
        )  # fmt: skip


def _admit(caller: Caller, served: Served) -> None:
    if not (served.scoped and caller.anywhere(served.role)):
        caller.require_everywhere(served.role)


class Roles:
    """The policy of a home as its file has it now; None while that cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] | None = None
        self._policy: Policy | None = Policy()

    def policy(self) -> Policy | None:
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._policy = rolesfile.load(self._path)
            except ViscriptError as error:
                log.warning("nobody but the keys of this home may anything: %s", error)
                self._policy = None
        return self._policy

    def _look(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode, found.st_uid
