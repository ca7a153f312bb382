"""`viscript host ls`: the hosts of the cluster, what state each is in, when it was heard last."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.errors import Partial
from viscript.output import age, document, note, table
from viscript.records import Status
from viscript.roles import Role

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.cluster.registrar import Registrar
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.host.list"


class Request(Struct):
    launches: list[str] = []  # names of hosts of which also the last known launches are wanted


class HostRow(Struct, kw_only=True):
    """A host as it is shown; `seen` is Unix seconds of its last word, null when there was none."""

    name: str
    state: str  # first, connected, unreachable, revoked, or pending: it asks to be admitted
    key: str
    fingerprint: str
    seen: float | None = None
    joined: float | None = None
    role: str = ""  # of its people on the other hosts
    launches: dict[str, int] = {}  # as far as known, by state
    last: list[Status] = []


class Reply(Struct):
    hosts: list[HostRow]


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Reply:
    from viscript.commands import hosts

    registrar = hosts.registrar(launcher)
    rows = [_first(launcher)]
    if (registry := registrar.registry) is not None:
        rows[0].name = registry.name
        for host in registry.hosts:
            last = registrar.last.get(host.key)
            known = [] if last is None else [x for x in last.launches if caller.may(Role.VIEW, x)]
            rows.append(
                HostRow(
                    name=host.name, state=registrar.state(host), key=host.key, fingerprint=_print(host.key),
                    seen=host.seen or (last.seen if last else None), joined=host.joined, role=host.role,
                    launches=Counter(status.state for status in known),
                    last=known if host.name in request.launches else [],
                )
            )  # fmt: skip
    if caller.role == Role.ADMIN:
        rows += await _pending(registrar)
    return Reply(rows)


def _first(launcher: Launcher) -> HostRow:
    key = launcher.place.launcher
    return HostRow(
        name=launcher.host or "this host", state="first", key=key, fingerprint=_print(key),
        seen=time.time(), role="admin",
        launches=Counter(str(record.state) for record in launcher.records.values()),
    )  # fmt: skip


async def _pending(registrar: Registrar) -> list[HostRow]:
    return [
        HostRow(name=x.name, state="pending", key=x.key, fingerprint=x.fingerprint, seen=x.since)
        for x in await registrar.pending()
    ]


def _print(key: str) -> str:
    from bus.identity import fingerprint

    return fingerprint(key)


def run(client: Client, *, as_json: bool) -> None:
    client.at_first()
    rows = client.ask(SUBJECT, Request(), Reply).hosts
    if as_json:
        document(rows)
    else:
        table(("HOST", "STATE", "SEEN", "PEOPLE", "RUNS", "FINGERPRINT"), [_row(x) for x in rows])
        if len(rows) == 1:
            note("No other host has joined; invite one: viscript host invite")
    away = [row.name for row in rows if row.state == "unreachable"]
    if away:
        raise Partial(
            f"not reachable: {', '.join(away)}; what is shown of them is what they said last"
        )


def _row(row: HostRow) -> tuple[str, ...]:
    runs = ", ".join(f"{count} {state}" for state, count in sorted(row.launches.items()))
    live = row.state in {"first", "connected"}
    seen = "now" if live else "never" if row.seen is None else f"{age(row.seen)} ago"
    return (row.name, row.state, seen, row.role or "-", runs or "-", row.fingerprint)
