"""Asking the daemons of all hosts the same, for commands that show: what comes is put together by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from viscript.errors import Denied, NoDaemon, NotFound, Partial, ViscriptError

if TYPE_CHECKING:
    from viscript.client import Client

T = TypeVar("T")
PATIENCE = 3.0  # seconds for all hosts together: one that hangs must not hide the others


@dataclass
class Answers(Generic[T]):
    """`replies` in the order of the hosts; `away` are the names of those that do not answer."""

    replies: list[T]
    away: list[str]

    def complete(self) -> None:
        """`Partial` if a host is missing, after all others were shown."""
        if self.away:
            names = ", ".join(self.away)
            raise Partial(f"not reachable: {names}; see: viscript host ls")


def ask(
    client: Client, subject: str, request: object, kind: type[T], timeout: float = 5.0
) -> Answers[T]:
    """Our daemon alone, or in a cluster all. `NotFound` only if it is so on all that answer."""
    if client.known is None:
        return Answers([client.ask(subject, request, kind, timeout)], [])
    hosts = client.known.directory.accepted
    asked = [(host, request) for host in hosts]
    found = client.ask_hosts(subject, asked, kind, min(timeout, PATIENCE))
    answers: Answers[T] = Answers([], [])
    refusals: list[ViscriptError] = []
    for host in hosts:
        answer = found[host.key]
        if isinstance(answer, NoDaemon):
            answers.away.append(host.name)
        elif isinstance(answer, ViscriptError):
            refusals.append(answer)
        else:
            answers.replies.append(answer)
    _weigh(refusals, answered=bool(answers.replies))
    if not answers.replies:
        raise NoDaemon(f"no host answers: {', '.join(answers.away)}; see: viscript host ls")
    return answers


def _weigh(refusals: list[ViscriptError], *, answered: bool) -> None:
    """What is not there, or not ours to see, on one host may be so on another; all else is raised."""
    usual = [x for x in refusals if isinstance(x, NotFound | Denied)]
    for problem in refusals:
        if problem not in usual:
            raise problem
    if usual and not answered:
        raise next((x for x in usual if isinstance(x, NotFound)), usual[0])
