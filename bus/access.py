"""Who may connect and what each role may do. Default deny: what no role allows is refused.

Pure policy: an `AccessList` is an immutable snapshot; a change makes a new one, swapped in whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from bus.errors import BusError
from bus.identity import is_key
from bus.signals import AccessEntries, AccessEntry
from bus.subjects import covers

Verb = Literal["publish", "subscribe", "request", "serve", "signal"]
MAX_NAME = 64


@dataclass(frozen=True)
class Rights:
    """Patterns allowed per verb; `deny` wins over every allow of any role."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    request: tuple[str, ...] = ()  # by service or addressed to a key
    serve: tuple[str, ...] = ()
    signal: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def allows(self, verb: Verb, pattern: str) -> bool:
        allowed: tuple[str, ...] = getattr(self, verb)
        return any(covers(a, pattern) for a in allowed) and not any(
            covers(d, pattern) for d in self.deny
        )


_APP = Rights(
    publish=("app.>", "topic.>"), subscribe=("app.>", "topic.>", "mesh.event.>"), serve=("app.>",),
    request=("app.>",),
)  # fmt: skip

ROLES: Mapping[str, Rights] = {
    "admin": Rights(*((">",),) * 5),
    # Runs the system day by day; does not decide who belongs to it.
    "operator": Rights(*((">",),) * 5, deny=("$SYS.access.>",)),
    "observer": Rights(subscribe=(">",), request=("$SYS.sessions", "$SYS.info", "viscript.list")),
    "app": _APP,
    "node": Rights(
        publish=(*_APP.publish, "mesh.event.>"), subscribe=_APP.subscribe, serve=_APP.serve,
        request=(*_APP.request, "mesh.>"),
    ),
    "manager": Rights(
        publish=(*_APP.publish, "mesh.>"), subscribe=(*_APP.subscribe, "$SYS.presence.>"),
        serve=(*_APP.serve, "mesh.>"), request=(*_APP.request, "node.>"),
    ),
}  # fmt: skip

# Only the broker itself speaks here, whatever the role.
_RESERVED = "$SYS.>"


def rights_of(roles: Iterable[str]) -> Rights:
    """The union of the roles' rights; unknown roles add nothing."""
    held = [ROLES[r] for r in roles if r in ROLES]
    return Rights(
        publish=tuple(p for r in held for p in r.publish),
        subscribe=tuple(p for r in held for p in r.subscribe),
        request=tuple(p for r in held for p in r.request),
        serve=tuple(p for r in held for p in r.serve),
        signal=tuple(p for r in held for p in r.signal),
        # One role's deny must not take what another grants outright: admin + operator is admin.
        deny=() if "admin" in roles else tuple(p for r in held for p in r.deny),
    )


def may(rights: Rights, verb: Verb, pattern: str) -> bool:
    """Whether a participant with `rights` may do `verb` on `pattern`."""
    if verb in {"publish", "serve"} and covers(_RESERVED, pattern):
        return False
    return rights.allows(verb, pattern)


class AccessError(BusError):
    """An access entry or file that cannot be used; the message says which and why."""


class AccessList:
    """The allowed keys, immutable."""

    def __init__(self, entries: Iterable[AccessEntry] = ()) -> None:
        self._entries = {e.key: e for e in entries}

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str) -> AccessEntry | None:
        return self._entries.get(key)

    @property
    def entries(self) -> list[AccessEntry]:
        return list(self._entries.values())

    def with_entry(self, entry: AccessEntry) -> AccessList:
        """A list that also allows `entry`, replacing what its key had; `AccessError` if it is bad."""
        check(entry)
        return AccessList([*(e for e in self._entries.values() if e.key != entry.key), entry])

    def without(self, key: str) -> AccessList:
        return AccessList(e for e in self._entries.values() if e.key != key)


def check(entry: AccessEntry) -> None:
    if not is_key(entry.key):
        raise AccessError(f"access: {entry.key!r} is not a key in Z85 form (40 characters)")
    if len(entry.name) > MAX_NAME or not entry.name.isprintable():
        raise AccessError(
            f"access: name of key {entry.key}: at most {MAX_NAME} printable characters"
        )
    if len(entry.roles) > len(ROLES):
        raise AccessError(f"access: {len(entry.roles)} roles for key {entry.key}; give each once")
    unknown = [r for r in entry.roles if r not in ROLES]
    if unknown or not entry.roles:
        wrong = f"unknown role {unknown[0]!r}" if unknown else "no role"
        raise AccessError(f"access: {wrong} for key {entry.key}; roles are {', '.join(ROLES)}")


def decode(text: bytes) -> AccessList:
    """The list in an access file; `AccessError` says what is wrong in it."""
    try:
        entries = msgspec.json.decode(text, type=AccessEntries).keys
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise AccessError(f"not an access list: {error}") from None
    for entry in entries:
        check(entry)
    return AccessList(entries)


def encode(access: AccessList) -> bytes:
    return msgspec.json.format(msgspec.json.encode(AccessEntries(access.entries)), indent=2) + b"\n"
