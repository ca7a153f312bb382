"""Seeing and doing on all hosts of a cluster: behind `la`, `ping`, `ru`, `sd` …, no command of its own.

What is meant is chosen here, from what all hosts say; each host is then asked about its own launches by their
ids, which no other host has. It decides itself what we may there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from viscript import meaning, selectors
from viscript.commands import list as listing
from viscript.commands.hosts import ls as hosts_ls
from viscript.errors import NoDaemon, NotFound, Partial, ViscriptError
from viscript.output import age

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.cluster.talk import HostInfo
    from viscript.records import Status

T = TypeVar("T")


@dataclass
class Away:
    """A host that does not answer, and what it said last."""

    name: str
    why: str
    seen: float | None = None  # Unix seconds
    launches: list[Status] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name} (last word {age(self.seen)} ago)" if self.seen else self.name


@dataclass
class Found:
    """Launches by host, in the order of the hosts; each has its host's name."""

    here: list[tuple[HostInfo, list[Status]]]
    away: list[Away]

    @property
    def launches(self) -> list[Status]:
        return [status for _, launches in self.here for status in launches]

    def problem(self) -> ViscriptError | None:
        """What is to be said when it was done as far as it could be."""
        if not self.away:
            return None
        names = ", ".join(str(away) for away in self.away)
        return Partial(f"not reachable: {names}; see: viscript host ls")


def look(client: Client, *, everything: bool = False) -> Found:
    """What all hosts show of themselves, and what those that are away said last."""
    assert client.known is not None  # noqa: S101 - for the type: in a cluster only
    hosts = client.known.directory.accepted
    request = listing.Request(everything)
    asked = [(host, request) for host in hosts]
    answers = client.ask_hosts(listing.SUBJECT, asked, listing.Reply)
    found = Found([], [])
    for host in hosts:
        answer = answers[host.key]
        if isinstance(answer, listing.Reply):
            for status in answer.launches:
                status.host, status.seen = host.name, None  # who answers is known, not believed
            own = [x for x in answer.launches if client.known.directory.may_have(host, x.id)]
            found.here.append((host, own))
        elif isinstance(answer, NoDaemon):
            found.away.append(Away(host.name, str(answer)))
        elif answer.name != "denied":
            raise answer
    if found.away:
        _remember(client, found.away)
    return found


def _remember(client: Client, away: Sequence[Away]) -> None:
    """Add what the first host has heard of them last, if it can be asked."""
    assert client.known is not None  # noqa: S101
    request = hosts_ls.Request([each.name for each in away])
    first = client.known.directory.first
    answer = client.ask_hosts(hosts_ls.SUBJECT, [(first, request)], hosts_ls.Reply)[first.key]
    if not isinstance(answer, hosts_ls.Reply):
        return
    rows = {row.name: row for row in answer.hosts if row.state != "pending"}
    for each in away:
        if (row := rows.get(each.name)) is not None:
            each.seen = row.seen
            each.launches = row.last
            for status in each.launches:
                status.host, status.seen = each.name, row.seen or 0.0


def meant(client: Client, words: Sequence[str], *, ended: bool = False) -> Found:
    """Of which hosts which launches the words mean; all that live without words.

    `NoDaemon` when they are on hosts that are away, `NotFound` when nowhere. `away` of the answer are the
    hosts that had something that is meant when they were heard last.
    """
    numbers = any(word.isdecimal() for word in words)
    found = look(client, everything=numbers)
    if not words:
        live = [(host, [x for x in launches if x.ended is None]) for host, launches in found.here]
        return Found(live, found.away)
    selector = meaning.selected_here(client.home, words)
    names = selectors.named(selector)
    chosen = [(host, _chosen(selector, launches, ended=ended)) for host, launches in found.here]
    answered = {status.id for status in found.launches}
    for away in found.away:  # what it said once does not count against who answers now
        last = [status for status in away.launches if status.id not in answered]
        away.launches = _chosen(selector, last, ended=False)
    missing = [away for away in found.away if away.launches or _names(names, away)]
    result = Found([(host, x) for host, x in chosen if x], missing)
    for name in names:
        if not selectors.select(
            name, [*result.launches, *(x for a in missing for x in a.launches)]
        ):
            _absent(str(name), [a for a in missing if _names([name], a)], found.away)
    if not result.here:
        _absent(str(selector), missing, found.away)
    return result


def holder(client: Client, word: str) -> tuple[Client, str]:
    """Whose daemon is to be asked about one launch, by `HOST:APP` or its id, and what it is called there."""
    there, what = client.for_app(word)
    if there.host or client.known is None or not word.isdecimal():
        return there, what
    host, _ = meant(client, [word]).here[0]
    return client.at(host), what


def _chosen(selector: selectors.Selector, launches: list[Status], *, ended: bool) -> list[Status]:
    """Who has ended is meant only by its id, or where `ended` may be."""
    ids = {name.what for name in selectors.named(selector)}
    return [
        status
        for status in selectors.select(selector, launches)
        if status.ended is None or ended or str(status.id) in ids
    ]


def _names(names: Sequence[selectors.Name], away: Away) -> bool:
    return any(name.host == away.name for name in names)


def _absent(what: str, missing: Sequence[Away], away: Sequence[Away]) -> None:
    if missing:
        hosts = ", ".join(str(each) for each in missing)
        raise NoDaemon(f"{what} is on a host that cannot be reached: {hosts}; nothing was done")
    tail = f"; not reachable: {', '.join(map(str, away))}" if away else ""
    raise NotFound(f"nothing on any host matches {what}{tail}; see: viscript la --all")


def gather(
    client: Client, found: Found, subject: str, request: Callable[[list[str]], object],
    kind: type[T], timeout: float,
) -> list[tuple[HostInfo, T]]:  # fmt: skip
    """Ask each host about its own; who falls silent meanwhile is `away` afterwards."""
    answers: list[tuple[HostInfo, T]] = []
    hosts = [(host, [str(x.id) for x in launches]) for host, launches in found.here if launches]
    asked = [(host, request(ids)) for host, ids in hosts]
    replies = client.ask_hosts(subject, asked, kind, timeout)
    for host, _ in hosts:
        reply = replies[host.key]
        if isinstance(reply, NoDaemon):
            found.away.append(Away(host.name, str(reply), time.time()))
        elif isinstance(reply, ViscriptError):
            raise reply
        else:
            answers.append((host, reply))
    return answers
