"""`viscript node name …`: the user's own names for keys."""

from __future__ import annotations

from msgspec import Struct

from bus.identity import fingerprint, short
from viscript.addresses import Addresses
from viscript.commands.bus import typed
from viscript.commands.node.mesh import Mesh, addresses_file, chosen_home
from viscript.output import document, listing, say


class Address(Struct):
    name: str
    key: str
    fingerprint: str


def ls() -> None:
    found = [Address(name, key, fingerprint(key)) for name, key in sorted(_here().keys.items())]
    cells = [(x.name, short(x.key), x.fingerprint) for x in found]
    none = "No names. Give one: viscript node name set NAME KEY|NODE"
    listing(found, ("NAME", "KEY", "FINGERPRINT"), cells, none)


def set_(name: str, target: str, *, replace: bool, as_json: bool) -> None:
    """`target` is a key, or the name of a node that is there now."""
    key = typed.key_or_none(target)
    if key is None:
        with Mesh() as mesh:
            key = mesh.find(target)
    _here().set(name, key, replace=replace)
    _told(name, key, "names", as_json=as_json)


def rm(name: str, *, as_json: bool) -> None:
    known = _here()
    key = known.key(name) or ""
    known.remove(name)
    _told(name, key, "no longer names", as_json=as_json)


def _told(name: str, key: str, does: str, *, as_json: bool) -> None:
    if as_json:
        document(Address(name, key, fingerprint(key)))
    else:
        say(f"{name} {does} {key} (fingerprint {fingerprint(key)})")


def _here() -> Addresses:
    return Addresses(addresses_file(chosen_home()))
