"""`viscript list` (`la`): what runs, and what has ended last."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from viscript.output import age, document, moment, say, table
from viscript.records import Status

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.launcher import Launcher
    from viscript.roles import Caller
    from viscript.selectors import Selector

T = TypeVar("T", bound="Status")
SUBJECT = "viscript.list"
ENDED, ENDED_ALL = 10, 100


class Request(Struct):
    all: bool = False
    select: list[str] = []  # nothing: everything


class Reply(Struct):
    launches: list[Status]


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Reply:
    """All live ones, what has failed and is not cleared, the last ended of this session or with `all` of any.

    `NotFound` if none is meant.
    """
    from viscript import meaning
    from viscript.roles import Role

    session = launcher.store.session
    ended = [
        record
        for record in launcher.store.ended(ENDED_ALL if request.all else ENDED)
        if request.all or record.session == session
    ]
    shown = [*launcher.failed(), *ended, *launcher.records.values()]
    records = {record.id: record for record in shown}
    visible = [records[number] for number in sorted(records)]
    visible = [record for record in visible if caller.may(Role.VIEW, record)]
    if request.select:
        visible = chosen(visible, meaning.selected(launcher, request.select))
    return Reply([record.status() for record in visible])


def chosen(records: list[T], selector: Selector) -> list[T]:
    from viscript import selectors
    from viscript.errors import NotFound

    found = selectors.select(selector, records)
    if not found:
        raise NotFound(f"nothing matches {selector}; see: viscript la --all, viscript apps")
    return found


def run(client: Client, words: list[str], *, everything: bool, as_json: bool) -> None:
    launches = client.ask(SUBJECT, Request(everything, words), Reply).launches
    show(launches, as_json=as_json)


def show(launches: list[Status], *, as_json: bool) -> None:
    hosts = [] if all(not status.host for status in launches) else ["HOST"]
    if as_json:
        document(launches)
    elif launches:
        head = ("ID", *hosts, "APP", "STATE", "SINCE", "PID", "KEY", "")
        several = {(x.host, x.app) for x in launches if x.instance}
        table(
            head,
            [
                _row(x, one_of_several=(x.host, x.app) in several, named=bool(hosts))
                for x in launches
            ],
        )
    else:
        say("Nothing runs. What can be started: viscript apps")


def _row(status: Status, *, one_of_several: bool, named: bool) -> tuple[str, ...]:
    """Instances as selectors name them, where there are several."""
    from bus.identity import is_key, short

    app = f"{status.app}:{status.instance}" if one_of_several else status.app
    return (
        str(status.id), *([status.host] if named else []), app, status.state, moment(status.since),
        str(status.pid or "-"), short(status.key) if is_key(status.key) else "-", remark(status),
    )  # fmt: skip


def remark(status: Status) -> str:
    """How it ended, how often it was restarted, why it is as it is."""
    parts = []
    if status.seen is not None:
        parts.append(f"as of {age(status.seen)} ago: its host is not reachable")
    if status.exit is not None and status.state != "running":
        parts.append(f"exit {status.exit}")
    if status.restarts:
        parts.append(f"restarted {status.restarts}x")
    if status.reason:
        parts.append(status.reason)
    return "; ".join(parts)
