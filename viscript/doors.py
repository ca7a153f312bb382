"""Who is on the access list before the broker runs: the keys of the home itself, and apps begun at once."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from bus import keystore
from bus.access import AccessError, AccessList
from bus.errors import KeyFileError
from bus.identity import Address, KeyPair
from bus.signals import AccessEntry
from viscript import endpoints, processes
from viscript.cluster import files
from viscript.errors import Denied
from viscript.home import Home
from viscript.processes import Fate
from viscript.records import Record
from viscript.state import Store


class OwnKeys(Struct, frozen=True):
    """Of the broker and the daemon; `names` are those on the access list, by public key."""

    broker: KeyPair
    daemon: KeyPair
    names: dict[str, str]


def own_keys(home: Home, *, alone: bool) -> OwnKeys:
    """The home's own, all made at the first `up`; `Denied`. `alone`: its broker is to let them in."""
    try:
        broker, own, cli, admin = (
            keystore.load_or_create(home.keys / f"{name}.key")
            for name in ("broker", "daemon", "cli", "admin")
        )
        ours = (("viscript", own, "admin"), ("cli", cli, "operator"), ("admin", admin, "admin"))
        if alone:
            _add(home, [AccessEntry(pair.public, name, [role]) for name, pair, role in ours])
        names = {pair.public: name for name, pair, _ in ours}
    except (KeyFileError, AccessError, OSError) as error:
        raise Denied(str(error)) from None
    return OwnKeys(broker, own, names)


def is_cold(home: Home, store: Store, address: Address) -> bool:
    """Whether there is nothing to adopt, no cluster to get ids from, and the broker's place is free."""
    if files.load_membership(home) is not None or files.load_registry(home) is not None:
        return False
    if store.is_up or store.live():
        return False
    fate, _ = processes.look(home.launches / "broker")
    return fate is Fate.ENDED and not endpoints.taken(address.endpoint)


def let_in(home: Home, records: Iterable[Record]) -> None:
    """Allow the keys of launches while no broker runs; `Denied`."""
    wanted = [AccessEntry(record.key, record.slot, [record.role]) for record in records]
    try:
        _add(home, wanted, instead=True)
    except (KeyFileError, AccessError, OSError) as error:
        raise Denied(str(error)) from None


def _add(home: Home, wanted: list[AccessEntry], *, instead: bool = False) -> None:
    """`instead`: also where a key is allowed something else already. Writes only what is new."""
    before = AccessList()
    if home.access.exists():
        before = keystore.load_access(home.access)
    after = before
    for entry in wanted:
        had = before.get(entry.key)
        if had is None or (instead and had.roles != entry.roles):
            after = after.with_entry(entry)
    if after is not before:
        keystore.save_access(home.access, after)
