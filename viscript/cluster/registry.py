"""Which hosts belong to a cluster, as what, and with which keys and ids. Pure; times are Unix seconds.

A `Registry` is an immutable snapshot that the first host keeps. A host is accepted with its invitation, or by
an admin who has compared its fingerprint; what it may then do is its people's `role` on the other hosts, and
as launcher its own apps alone.
"""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct, structs

from bus.identity import fingerprint, is_key
from viscript.cluster.numbers import BLOCK, Block, holds, joined
from viscript.errors import Conflict, Denied, NotFound

RoleName = Literal["none", "view", "operate", "configure", "admin"]
APP_ROLES = frozenset({"app", "node"})  # that a host may give to its apps
MAX_HOSTS = 256
MAX_APPS = 4096  # keys of one host
MAX_INVITES = 64
MAX_PAST = 256  # hosts of which no more is kept than which ids they were given
_NAME = re.compile(r"(?=.*[a-z])[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")


class Invite(Struct, frozen=True):
    """What was promised to who comes with the bus token called `token`."""

    token: str
    host: str  # its name; empty: as it calls itself
    role: RoleName
    expires: float


class Host(Struct, frozen=True, kw_only=True):
    """One host beside the first."""

    name: str
    key: str  # its daemon's
    people: str  # the key of its command line
    role: RoleName  # of its people, on the other hosts
    state: Literal["accepted", "revoked"] = "accepted"
    apps: dict[str, str] = {}  # key -> slot of what it has let in
    ids: tuple[Block, ...] | None = None  # all it was given; None: joined before they were kept
    joined: float = 0.0
    seen: float = 0.0

    def may_have(self, number: int) -> bool:
        """Whether a launch with this id can be its own."""
        return self.ids is None or holds(self.ids, number)

    @property
    def keys(self) -> list[str]:
        """All that is on the access list because of it."""
        return [self.key, self.people, *self.apps]


class Registry(Struct, frozen=True, kw_only=True):
    """`name` is the first host's own; every id up to `handed` is some host's."""

    name: str
    handed: int = 0
    hosts: tuple[Host, ...] = ()
    invites: tuple[Invite, ...] = ()
    past: dict[str, tuple[Block, ...] | None] = {}  # `ids` of hosts that were removed, by key

    def by_key(self, key: str) -> Host | None:
        return next((host for host in self.hosts if host.key == key), None)

    def accepted(self, key: str) -> Host:
        """The host with this daemon's key; `Denied` when it does not belong."""
        host = self.by_key(key)
        if host is None or host.state != "accepted":
            raise Denied(
                f"the key {key} is no host of this cluster; ask its admin: viscript host ls"
            )
        return host

    def find(self, word: str) -> Host:
        """By name, fingerprint or key; `NotFound`."""
        for host in self.hosts:
            if word in {host.name, host.key, fingerprint(host.key)}:
                return host
        raise NotFound(f"no host {word[:80]!r}; see: viscript host ls")

    def with_invite(self, invite: Invite, now: float) -> Registry:
        """`Conflict` when the name is taken or too many invitations wait."""
        live = [i for i in self.invites if i.expires > now]
        if len(live) >= MAX_INVITES:
            raise Conflict(
                f"{MAX_INVITES} invitations wait to be used; the oldest expire by themselves"
            )
        if invite.host:
            check_name(invite.host)
            if invite.host in self._names(""):
                raise Conflict(
                    f"there is a host {invite.host!r}; choose another --name, or: "
                    f"viscript host rm {invite.host}"
                )
        return structs.replace(self, invites=(*live, invite))

    def admit(
        self, key: str, token: str, wanted: str, people: str, now: float
    ) -> tuple[Registry, Host]:
        """Take in who has come with `token`, or is accepted already; `Denied`, `Conflict`.

        A host that comes again keeps its name, and gets what a newer invitation promises.
        """
        if not is_key(people) or people == key:
            raise Denied("the key of the host's command line is none")
        known = self.by_key(key)
        invite = next((i for i in self.invites if i.token == token and i.expires > now), None)
        if invite is None:
            host = self.accepted(key)
            if host.people != people:
                raise Denied(f"{host.name} comes with another command line key than it joined with")
            return self, host
        if known is None and len(self.hosts) >= MAX_HOSTS:
            raise Conflict(f"a cluster has at most {MAX_HOSTS} hosts; remove one: viscript host rm")
        if any(people in other.keys for other in self.hosts if other.key != key):
            raise Denied("the key of the host's command line is another host's")
        kept = known.name if known is not None else ""
        host = Host(
            name=invite.host or kept or self._free_name(wanted), key=key, people=people,
            role=invite.role, apps=known.apps if known else {}, joined=now, seen=now,
            ids=known.ids if known else self.past.get(key, ()),
        )  # fmt: skip
        left = tuple(i for i in self.invites if i is not invite)
        return structs.replace(self._with(host), invites=left), host

    def with_app(self, key: str, app: str, slot: str) -> Registry:
        """Let the host with `key` have the key `app` in; `Denied` when it is somebody else's."""
        host = self.accepted(key)
        if any(app in other.keys for other in self.hosts if other is not host):
            raise Denied(f"the key {app} is another host's")
        if app in {host.key, host.people}:
            raise Denied(f"the key {app} is the host's own, not an app's")
        if app not in host.apps and len(host.apps) >= MAX_APPS:
            raise Conflict(f"{host.name} has {MAX_APPS} keys of apps on the bus; that is the limit")
        return self._with(structs.replace(host, apps={**host.apps, app: slot[:64]}))

    def without_app(self, key: str, app: str) -> Registry:
        host = self.accepted(key)
        kept = {k: slot for k, slot in host.apps.items() if k != app}
        return self._with(structs.replace(host, apps=kept))

    def seen(self, key: str, now: float) -> Registry:
        return self._with(structs.replace(self.accepted(key), seen=now))

    def revoke(self, host: Host) -> Registry:
        """Its keys have to go from the access list; it stays known under its name, and they with it."""
        return self._with(structs.replace(host, state="revoked"))

    def remove(self, host: Host) -> Registry:
        """Forgotten but for its ids: what still runs there has them, and it may come again."""
        others = [(key, ids) for key, ids in self.past.items() if key != host.key]
        past = dict([*others, (host.key, host.ids)][-MAX_PAST:])
        left = tuple(h for h in self.hosts if h.key != host.key)
        return structs.replace(self, hosts=left, past=past)

    def hand_out(self, used: int) -> tuple[Registry, Block]:
        """A block that no host has had; `used` is the highest id of the first host itself."""
        start = -(-max(self.handed, used) // BLOCK) * BLOCK
        block = Block(start + 1, start + BLOCK)
        return structs.replace(self, handed=block.last), block

    def hand_out_to(self, key: str, used: int) -> tuple[Registry, Block]:
        """A block for the host with `key`, whose launches are known by it from now on; `Denied`."""
        host = self.accepted(key)
        registry, block = self.hand_out(used)
        if host.ids is None:
            return registry, block
        holder = structs.replace(host, ids=joined(host.ids, block))
        return structs.replace(self._with(holder), handed=registry.handed), block

    def _with(self, host: Host) -> Registry:
        others = tuple(h for h in self.hosts if h.key != host.key)
        return structs.replace(self, hosts=tuple(sorted((*others, host), key=lambda h: h.joined)))

    def _names(self, key: str) -> set[str]:
        return {self.name, *(host.name for host in self.hosts if host.key != key)}

    def _free_name(self, wanted: str) -> str:
        base = name_of(wanted)
        taken = self._names("") | {i.host for i in self.invites}
        tries = (base, *(f"{base[:28]}-{n}" for n in range(2, MAX_HOSTS + 64)))
        return next(name for name in tries if name not in taken)


def check_name(name: str) -> None:
    """`Conflict` unless hosts may be called so."""
    if _NAME.fullmatch(name) is None:
        raise Conflict(
            f"not a name for a host: {name[:80]!r}; small letters, digits and - are, at most 32, "
            "with a letter"
        )


def name_of(wanted: str) -> str:
    """The nearest to `wanted`, a machine's name, that hosts may be called."""
    text = re.sub(r"[^a-z0-9]+", "-", wanted.lower().partition(".")[0])[:32].strip("-")
    return text if _NAME.fullmatch(text) else f"host-{text}"[:32].strip("-")
