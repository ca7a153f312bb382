"""Who may what: view < operate < configure < admin, for each key and what a selector matches.

Pure policy, deny by default: `Policy` is an immutable snapshot of the home's
`roles.yaml`; a change makes a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from viscript.errors import Denied
from viscript.selectors import Entry

EVERYTHING = "*"


class Role(IntEnum):
    """What each may do the next may too."""

    VIEW = 1  # look at it
    OPERATE = 2  # start it, stop it, signal it, type into it
    CONFIGURE = 3  # change what it is
    ADMIN = 4  # decide who may what; run anything; end everything

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Grant:
    """`role` on what `matches`; `on` is the selector as it was written."""

    role: Role
    on: str
    matches: Callable[[Entry], bool]


@dataclass(frozen=True)
class Caller:
    """Who asks the daemon, by the key that the broker has verified."""

    key: str
    name: str
    grants: tuple[Grant, ...] = ()

    @property
    def role(self) -> Role | None:
        """On everything; None: on nothing, or only on what a selector matches."""
        return max((grant.role for grant in self.grants if grant.on == EVERYTHING), default=None)

    def anywhere(self, role: Role) -> bool:
        """Whether there can be anything on which this caller has `role`."""
        return any(grant.role >= role for grant in self.grants)

    def may(self, role: Role, what: Entry) -> bool:
        return any(grant.role >= role and grant.matches(what) for grant in self.grants)

    def require(self, role: Role, what: Entry) -> None:
        """`Denied` unless this caller has `role` on `what`."""
        if not self.may(role, what):
            raise Denied(f"{self.name or self.key} may not {role} {what.app}; {REMEDY}")

    def require_everywhere(self, role: Role) -> None:
        """`Denied` unless this caller has `role` on everything."""
        if self.role is None or self.role < role:
            raise Denied(f"{self.name or self.key} is not {role} of this host; {REMEDY}")


REMEDY = "an admin allows it: viscript role set KEY ROLE"


def everything(_: Entry) -> bool:
    return True


def owner(key: str, name: str) -> Caller:
    """A key of the home itself: admin of its daemon."""
    return Caller(key, name, (Grant(Role.ADMIN, EVERYTHING, everything),))
