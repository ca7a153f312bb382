"""Who may what: view < operate < configure < admin, for each key and what a selector matches.

Pure policy, deny by default: `Policy` is an immutable snapshot of the home's `roles.yaml`; a change makes a
new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from functools import cached_property

from msgspec import Struct

from bus.identity import is_key
from viscript import selectors
from viscript.errors import BadUsage, Denied, NotFound
from viscript.selectors import Entry, Selector

EVERYTHING = "*"
REMEDY = "an admin allows it: viscript role set KEY ROLE"
MAX_NAME = 64
MAX_GRANTS = 1000


class Role(IntEnum):
    """What each may do the next may too."""

    VIEW = 1  # look at it
    OPERATE = 2  # start it, stop it, signal it, type into it
    CONFIGURE = 3  # change what it is
    ADMIN = 4  # decide who may what; run anything; end everything

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def named(cls, word: str) -> Role:
        """`BadUsage`."""
        try:
            return cls[word.upper()]
        except KeyError:
            raise BadUsage(
                f"no role {word[:40]!r}; roles are view, operate, configure, admin"
            ) from None


class Grant(Struct, frozen=True, dict=True):
    """`role` for `key` on what the selector `on` matches; `name` is for people."""

    key: str
    role: Role
    on: str = EVERYTHING
    name: str = ""

    @cached_property
    def _selector(self) -> Selector:
        return selectors.parse(self.on)

    @cached_property
    def _asks(self) -> frozenset[str]:
        """What must be known of a thing, or `not @secret` would hold for what has no groups to show."""
        return frozenset("groups" if x == "group" else x for x in _fields(self._selector))

    def matches(self, what: Entry) -> bool:
        if self.on == EVERYTHING:
            return True
        known = all(getattr(what, x, None) is not None for x in self._asks)
        return known and self._selector.matches(what)

    def check(self) -> None:
        """`BadUsage` unless it can stand in a policy."""
        if not is_key(self.key):
            raise BadUsage(f"not a key: {self.key[:60]!r}; it has 40 characters (Z85)")
        if len(self.name) > MAX_NAME or not self.name.isprintable():
            raise BadUsage(f"the name of {self.key}: at most {MAX_NAME} printable characters")
        selectors.parse(self.on)
        if fields := set(_fields(self._selector)) & {"state", "id", "instance"}:
            raise BadUsage(
                f"a role holds on what stays: not on {', '.join(sorted(fields))}; use app, group or host"
            )


def _fields(selector: Selector) -> Iterator[str]:
    """Which fields a selector asks about; a bare number may be an id."""
    match selector:
        case selectors.Field(field=field):
            yield field
        case selectors.Name(what=what, host=host):
            if what.isdecimal():
                yield "id"
            if host:
                yield "host"
        case selectors.Not(inner=inner):
            yield from _fields(inner)
        case selectors.And(parts=parts) | selectors.Or(parts=parts):
            for part in parts:
                yield from _fields(part)


class Policy(Struct, frozen=True):
    """All grants of a host."""

    grants: tuple[Grant, ...] = ()

    def of(self, key: str) -> tuple[Grant, ...]:
        return tuple(grant for grant in self.grants if grant.key == key)

    def with_grant(self, grant: Grant) -> Policy:
        """One more; it takes the place of the one for the same key and selector."""
        grant.check()
        kept = [x for x in self.grants if (x.key, x.on) != (grant.key, grant.on)]
        if len(kept) >= MAX_GRANTS:
            raise BadUsage(f"{MAX_GRANTS} roles are the most; remove some: viscript role rm KEY")
        return Policy((*kept, grant))

    def without(self, key: str, on: str | None = None) -> Policy:
        """Without what `key` has, or what it has on that selector. `NotFound`."""
        kept = tuple(x for x in self.grants if x.key != key or on not in {None, x.on})
        if len(kept) == len(self.grants):
            raise NotFound(f"the key {key} has no such role here; see: viscript role ls")
        return Policy(kept)


class Caller(Struct, frozen=True):
    """Who asks the daemon, by the key that the broker has verified."""

    key: str
    name: str
    grants: tuple[Grant, ...] = ()

    @property
    def shown(self) -> str:
        return self.name or self.key

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
            raise Denied(f"{self.shown} may not {role} {what.app}; {REMEDY}")

    def require_everywhere(self, role: Role) -> None:
        """`Denied` unless this caller has `role` on everything."""
        if not self.grants:
            raise Denied(f"the key {self.key} has no role on this host; {REMEDY}")
        if self.role is None or self.role < role:
            raise Denied(f"this needs the role {role} on everything here; {REMEDY}")


def owner(key: str, name: str) -> Caller:
    """A key of the home itself: admin of its daemon."""
    return Caller(key, name, (Grant(key, Role.ADMIN),))


def caller(policy: Policy, key: str) -> Caller:
    """Who has `key`: without grants when nothing is known of it."""
    grants = policy.of(key)
    return Caller(key, _name(grants), grants)


def _name(grants: Iterable[Grant]) -> str:
    return next((grant.name for grant in grants if grant.name), "")
