"""Who may connect and what each key may do. Default deny: what nothing allows is refused.

A key's roles and its own `allow` grant; `deny` wins over both. Pure policy: an `AccessList` is an immutable
snapshot; a change makes a new one, swapped in whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from bus.errors import BusError
from bus.identity import is_key
from bus.signals import AccessEntries, AccessEntry, Rules
from bus.subjects import covers, is_pattern, overlaps

Verb = Literal["publish", "subscribe", "request", "serve", "signal"]
VERBS: tuple[Verb, ...] = ("publish", "subscribe", "request", "serve", "signal")
MAX_NAME = 64
MAX_RULES = 64  # patterns that one entry may allow, and as many that it may deny, over all verbs


class Rights(Struct, frozen=True):
    """Patterns allowed per verb; what `deny` covers is refused whatever allows it."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    request: tuple[str, ...] = ()  # by service or addressed to a key
    serve: tuple[str, ...] = ()
    signal: tuple[str, ...] = ()
    deny: Rules = Rules()

    def allows(self, verb: Verb, pattern: str) -> bool:
        """Whether all of `pattern` is allowed and none of it, or of a subscription not all, denied."""
        allowed: tuple[str, ...] = getattr(self, verb)
        denied: list[str] = getattr(self.deny, verb)
        # A subscription that reaches into a deny still gets the rest (`delivers`); a service that does
        # cannot be asked in part.
        refuses = overlaps if verb == "serve" else covers
        return any(covers(a, pattern) for a in allowed) and not any(
            refuses(d, pattern) for d in denied
        )

    def delivers(self, subject: str) -> bool:
        """Whether what is published to `subject` may reach a subscription that matches it."""
        return not any(covers(d, subject) for d in self.deny.subscribe)


_APP = Rights(
    publish=("app.>", "topic.>"), subscribe=("app.>", "topic.>", "mesh.event.>"),
    serve=("app.>", "$SRV.>"),
    request=("app.>", "$SRV.>", "$SYS.topics", "$SYS.consumers", "$SYS.consumer.>", "tracker.>"),
)  # fmt: skip
_MEMBERS = ["$SYS.access.>", "$SYS.enrol.>"]
_ROUTES = ["mesh.route", "mesh.release", "mesh.policy", "mesh.lay", "mesh.free"]
# What a node asks its manager; which ways are good people say, and no node.
_OF_A_NODE = (
    "mesh.register", "mesh.standing", "mesh.link", "mesh.resolve", "mesh.dial", "mesh.route",
    "mesh.release",
)  # fmt: skip

ROLES: Mapping[str, Rights] = {
    "admin": Rights(*((">",),) * 5),
    # Runs the system day by day; does not decide who belongs to it, nor which way traffic goes.
    "operator": Rights(*((">",),) * 5, deny=Rules(request=[*_MEMBERS, *_ROUTES], signal=_MEMBERS)),
    "observer": Rights(
        subscribe=(">",),
        request=(
            "$SYS.sessions", "$SYS.closed", "$SYS.info", "$SYS.varz", "$SYS.health", "$SYS.metrics",
            "$SYS.services", "$SYS.topics", "$SYS.consumers", "viscript.list", "tracker.find",
        ),
    ),
    "app": _APP,
    "node": Rights(
        publish=_APP.publish, subscribe=_APP.subscribe, serve=_APP.serve,
        request=(*_APP.request, *_OF_A_NODE),
    ),
    "manager": Rights(
        publish=(*_APP.publish, "mesh.>"), subscribe=(*_APP.subscribe, "$SYS.presence.>"),
        serve=(*_APP.serve, "mesh.>"), request=(*_APP.request, "node.>"),
    ),
    # Lists what apps offer in the mesh, and hears who has left.
    "tracker": Rights(
        publish=_APP.publish, subscribe=(*_APP.subscribe, "$SYS.presence.>"),
        serve=(*_APP.serve, "tracker.>"), request=_APP.request,
    ),
    # The launcher of a host that has joined: who is there, its own events, and asking the first host, which
    # lets its apps in.
    "host": Rights(
        publish=("viscript.events",), subscribe=("$SYS.presence.>", "viscript.hosts"),
        request=("viscript.member.>", "$SYS.sessions", "signal.ping"),
    ),
}  # fmt: skip

# Only the broker itself speaks here, whatever the role.
_RESERVED = "$SYS.>"


def rights_of(
    roles: Iterable[str], allow: Rules | None = None, deny: Rules | None = None
) -> Rights:
    """What the roles grant together and `allow` beside them, without `deny`; unknown roles add nothing."""
    roles = list(roles)
    held = [ROLES[r] for r in roles if r in ROLES]
    # One role's deny must not take what another grants outright: admin + operator is admin.
    lost = [] if "admin" in roles else [r.deny for r in held]
    granted: dict[Verb, tuple[str, ...]] = {
        verb: tuple(
            pattern for source in [*held, *_given(allow)] for pattern in getattr(source, verb)
        )
        for verb in VERBS
    }
    denied: dict[str, list[str]] = {
        verb: [pattern for source in [*lost, *_given(deny)] for pattern in getattr(source, verb)]
        for verb in VERBS
    }
    return Rights(**granted, deny=Rules(**denied))


def rights_for(entry: AccessEntry) -> Rights:
    """All that the key of this entry may do."""
    return rights_of(entry.roles, entry.allow, entry.deny)


def _given(rules: Rules | None) -> list[Rules]:
    return [] if rules is None else [rules]


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
    """`AccessError` unless the entry may stand in a list."""
    if not is_key(entry.key):
        raise AccessError(f"access: {entry.key!r} is not a key in Z85 form (40 characters)")
    if len(entry.name) > MAX_NAME or not entry.name.isprintable():
        raise AccessError(
            f"access: name of key {entry.key}: at most {MAX_NAME} printable characters"
        )
    if len(entry.roles) > len(ROLES):
        raise AccessError(f"access: {len(entry.roles)} roles for key {entry.key}; give each once")
    for field, rules in (("allow", entry.allow), ("deny", entry.deny)):
        for rule in _given(rules):
            _check_rules(entry.key, field, rule)
    unknown = [r for r in entry.roles if r not in ROLES]
    if unknown or not (entry.roles or (entry.allow and _patterns(entry.allow))):
        wrong = f"unknown role {unknown[0]!r}" if unknown else "no role and nothing allowed"
        raise AccessError(f"access: {wrong} for key {entry.key}; roles are {', '.join(ROLES)}")


def _check_rules(key: str, field: str, rules: Rules) -> None:
    patterns = _patterns(rules)
    if len(patterns) > MAX_RULES:
        raise AccessError(
            f"access: {field} of key {key}: {len(patterns)} patterns, at most {MAX_RULES}"
        )
    for pattern in patterns:
        if not is_pattern(pattern):
            raise AccessError(f"access: {field} of key {key}: not a pattern: {pattern[:80]!r}")


def _patterns(rules: Rules) -> list[str]:
    return [pattern for verb in VERBS for pattern in getattr(rules, verb)]


# In a file a misspelt "deny" must not be passed over, so there unknown keys are an error.


class _FileRules(Rules, frozen=True, forbid_unknown_fields=True):
    pass


class _FileEntry(Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    name: str
    roles: list[str]
    allow: _FileRules | None = None
    deny: _FileRules | None = None


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[_FileEntry]


def decode(text: bytes) -> AccessList:
    """The list in an access file; `AccessError` says what is wrong in it."""
    try:
        msgspec.json.decode(text, type=_File)
        entries = msgspec.json.decode(text, type=AccessEntries).keys
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise AccessError(f"not an access list: {error}") from None
    found = AccessList(entries)
    for entry in entries:
        check(entry)
        if found.get(entry.key) is not entry:
            raise AccessError(f"access: the key {entry.key} stands there twice")
    return found


def encode(access: AccessList) -> bytes:
    return msgspec.json.format(msgspec.json.encode(AccessEntries(access.entries)), indent=2) + b"\n"
