"""`viscript role ls|set|rm`: which other keys may do what on this host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from viscript.errors import Failed
from viscript.output import document, listing, say

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.role"


class Entry(Struct):
    """One role of one key: an entry of `viscript role ls --json`."""

    key: str
    role: str
    on: str = "*"
    name: str = ""


class Request(Struct):
    what: Literal["list", "set", "remove"]
    entry: Entry | None = None  # to set
    key: str = ""  # to remove
    on: str | None = None  # to remove only this


class Reply(Struct):
    roles: list[Entry]
    on_bus: bool = True  # the broker lets the key in


async def handle(launcher: Launcher, request: Request, _caller: Caller) -> Reply:
    from viscript import rolesfile
    from viscript.roles import Grant, Policy, Role

    path = launcher.home.roles
    policy: Policy = rolesfile.load(path)
    on_bus = True
    match request:
        case Request(what="set", entry=Entry() as entry):
            grant = Grant(entry.key, Role.named(entry.role), entry.on, entry.name)
            policy = policy.with_grant(grant)
            rolesfile.save(path, policy)
            on_bus = await _let_in(launcher, entry)
        case Request(what="remove"):
            policy = policy.without(request.key, request.on)
            rolesfile.save(path, policy)
            if not policy.of(request.key):
                await _shut_out(launcher, request.key)
        case _:
            pass
    return Reply([Entry(x.key, str(x.role), x.on, x.name) for x in policy.grants], on_bus)


# A key that is not on the list of our broker is let in for nothing but asking daemons.
_ASKING = ["viscript.>"]


async def _let_in(launcher: Launcher, entry: Entry) -> bool:
    from bus.errors import BusError
    from bus.listing import everything
    from bus.signals import ACCESS_LIST, ACCESS_PUT, AccessEntries, AccessEntry, Rules, pack

    if launcher.membership is None or launcher.registrar is None:
        return False
    try:
        bus = launcher.membership.bus
        known = (await everything(bus, ACCESS_LIST, AccessEntries)).keys
        if all(x.key != entry.key for x in known):
            allow = Rules(request=_ASKING)
            await bus.request(ACCESS_PUT, pack(AccessEntry(entry.key, entry.name, [], allow)))
    except BusError:
        return False
    return True


async def _shut_out(launcher: Launcher, key: str) -> None:
    """Only a key that was let in by us, for this alone."""
    from bus.errors import BusError
    from bus.listing import everything
    from bus.signals import ACCESS_LIST, ACCESS_REMOVE, AccessEntries, AccessKey, Rules, pack

    if launcher.membership is None or launcher.registrar is None:
        return
    try:
        bus = launcher.membership.bus
        known = (await everything(bus, ACCESS_LIST, AccessEntries)).keys
        ours = [
            x for x in known if x.key == key and not x.roles and x.allow == Rules(request=_ASKING)
        ]
        if ours:
            await bus.request(ACCESS_REMOVE, pack(AccessKey(key)))
    except BusError as error:
        raise Failed(
            f"the key has no role any more, but the broker still lets it in: {error}; "
            f"run: viscript bus keys forbid {key}"
        ) from None


def ls(client: Client) -> None:
    _show(client.ask(SUBJECT, Request("list"), Reply).roles)


def put(client: Client, entry: Entry, *, as_json: bool) -> None:
    reply = client.ask(SUBJECT, Request("set", entry), Reply)
    if as_json:
        document(reply.roles)
        return
    say(f"{entry.name or entry.key} may {entry.role} {_on(entry.on)}")
    if not reply.on_bus:
        say(
            "warning: the broker was not told of it; unless it is let in already, run on the first host: "
            f"viscript bus keys allow {entry.key}"
        )


def remove(client: Client, key: str, on: str | None, *, as_json: bool) -> None:
    reply = client.ask(SUBJECT, Request("remove", key=key, on=on), Reply)
    if as_json:
        document(reply.roles)
    else:
        left = [x for x in reply.roles if x.key == key]
        say(
            f"{key} may "
            + ("; ".join(f"{x.role} {_on(x.on)}" for x in left) or "nothing")
            + " here"
        )


def _on(selector: str) -> str:
    return "everything here" if selector == "*" else f"what {selector} matches"


def _show(found: list[Entry]) -> None:
    rows = ((x.key, x.name, x.role, x.on) for x in found)
    none = "No other key may do anything here. Allow one: viscript role set KEY ROLE"
    listing(found, ("KEY", "NAME", "ROLE", "ON"), rows, none)
