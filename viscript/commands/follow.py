"""What all verbs share on the command line: agree, order, wait for what comes of it, say it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.commands import job as jobs
from viscript.commands.order import Reply, Request
from viscript.commands.verdict import describe, verdict
from viscript.errors import Conflict, NoDaemon, NotFound, Unknown, ViscriptError
from viscript.output import document, note, say
from viscript.protocol import Job, Step

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.commands.fleet import Found
    from viscript.records import Status

# What is known by its id has only one host; what is yet to be started is started here, or on HOST:APP.
ON_ALL_HOSTS = frozenset({"viscript.stop", "viscript.restart", "viscript.reload", "viscript.kill"})
TRIES = 3  # to place an order whose answer got lost: it is carried out once all the same


class How(Struct, frozen=True):
    """Options of every verb. `timeout` in seconds is how long is waited, not how long it may take."""

    timeout: float
    wait: bool = True
    dry: bool = False
    yes: bool = False
    as_json: bool = False


Tell = Callable[[Step], str]  # what people read of a step that went well


def carry_out(
    client: Client, subject: str, request: Request, how: How, tell: Tell, *, one: bool = False,
    shown: Callable[[Job], object] | None = None,
) -> None:  # fmt: skip
    """Place the order and see it through; raises what became of it.

    `one`: JSON of one launch; `shown` makes other JSON of the job.
    """
    request.dry, request.several = how.dry, how.yes
    deadline = time.monotonic() + how.timeout
    if client.known is not None and subject in ON_ALL_HOSTS:
        _carry_out_on_all(client, subject, request, how, tell)
        return
    reply = _place(client, subject, request)
    if reply.job is None and not how.dry:
        _agree(reply.matched, how)
        request.select = [str(status.id) if status.id else status.app for status in reply.matched]
        request.several = True
        reply = _place(client, subject, request)
    if reply.job is None:
        _show_matched(reply.matched, how)
        return
    if not how.wait:
        _show_job(reply.job, how)
        return
    job = _see_through(client, reply.job, deadline, how, tell)
    if how.as_json:
        launches = [step.launch for step in job.steps]
        single = one and len(launches) == 1
        document(shown(job) if shown else launches[0] if single else launches)
    problem = verdict(job)
    if problem is not None:
        raise problem


def _carry_out_on_all(client: Client, subject: str, request: Request, how: How, tell: Tell) -> None:
    """As `carry_out`, a job on each host that has something of it; `Partial` when one is away."""
    from viscript.commands import fleet

    deadline = time.monotonic() + how.timeout
    found = fleet.meant(client, request.select, ended=subject == "viscript.restart")
    if how.dry:
        _show_matched(found.launches, how)
        return
    if not how.yes and len(found.launches) > len(request.select):
        _agree(found.launches, how)
    if request.batch and how.wait:
        done, problems = _one_by_one(client, subject, request, found, deadline, how, tell)
    else:
        placed, problems = _place_on_all(client, subject, request, found)
        done = _see_all_through(placed, problems, deadline, how, tell)
    _show_all(done, how)
    for problem in (*problems, found.problem()):
        if problem is not None:
            raise problem


def _one_by_one(
    client: Client, subject: str, request: Request, found: Found, deadline: float, how: How, tell: Tell,
) -> tuple[list[Job], list[ViscriptError]]:  # fmt: skip
    """With --batch one host after the other, and no further one after the first problem."""
    from viscript.commands.fleet import Found

    done: list[Job] = []
    problems: list[ViscriptError] = []
    for at, each in enumerate(found.here):
        placed, problems = _place_on_all(client, subject, request, Found([each], []))
        done += _see_all_through(placed, problems, deadline, how, tell)
        if problems:
            left = ", ".join(host.name for host, _ in found.here[at + 1 :])
            if left:
                note(f"not begun on {left}")
            break
    return done, problems


def _see_all_through(
    placed: list[tuple[Client, Job]], problems: list[ViscriptError], deadline: float, how: How, tell: Tell,
) -> list[Job]:  # fmt: skip
    """What became of each; what is not known of one host does not hide what is of another."""
    if not how.wait:
        return [job for _, job in placed]
    done = []
    for there, job in placed:
        try:
            seen = _see_through(there, job, deadline, how, tell)
        except Unknown as unknown:
            problems.append(unknown)
            continue
        done.append(seen)
        if (problem := verdict(seen)) is not None:
            problems.append(problem)
    return done


def _place_on_all(
    client: Client, subject: str, request: Request, found: Found
) -> tuple[list[tuple[Client, Job]], list[ViscriptError]]:
    """The jobs that were taken, with who is to be asked about them, and why others were not."""
    placed: list[tuple[Client, Job]] = []
    problems: list[ViscriptError] = []
    request.several = True
    for host, launches in found.here:
        there = client.at(host)
        request.select = [str(status.id) for status in launches]
        try:
            reply = _place(there, subject, request)
        except ViscriptError as problem:
            problems.append(type(problem)(f"{host.name}: {problem}"))
            continue
        if reply.job is not None:
            placed.append((there, reply.job))
    return placed, problems


def _show_all(placed: list[Job], how: How) -> None:
    if how.as_json and how.wait:
        document([step.launch for job in placed for step in job.steps])
    elif how.as_json:
        document(placed)
    elif not how.wait:
        for job in placed:
            _show_job(job, how)


def _place(client: Client, subject: str, request: Request) -> Reply:
    """The answer to an order, which is sent again when it is lost: the daemon knows it again."""
    request.request = secrets.token_hex(12)
    for _ in range(TRIES - 1):
        try:
            return client.ask(subject, request, Reply)
        except Unknown:
            continue
    try:
        return client.ask(subject, request, Reply)
    except Unknown:
        raise Unknown(
            "the daemon does not answer: it may have been done or not; "
            "later: viscript job ls, viscript la"
        ) from None


def _agree(matched: list[Status], how: How) -> None:
    """`Conflict` unless somebody at a terminal agrees to more than one."""
    import sys

    names = ", ".join(f"{x.app} (ID {x.id})" if x.id else x.app for x in matched[:20])
    names += f" and {len(matched) - 20} more" if len(matched) > 20 else ""
    if how.as_json or not sys.stdin.isatty():
        raise Conflict(
            f"{len(matched)} are meant: {names}; name one by its id, or put --yes before what is meant"
        )
    note(f"{len(matched)} are meant: {names}")
    print("All of them? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Conflict("nothing was done")


def _show_matched(matched: list[Status], how: How) -> None:
    if how.as_json:
        document(matched)
        return
    for status in matched:
        say(f"would be done to {status.app}" + (f" (ID {status.id})" if status.id else ""))


def _show_job(job: Job, how: How) -> None:
    if how.as_json:
        document(job)
    else:
        say(f"job {job.job}: {job.verb}, {job.state}; later: viscript job {job.job}")


def _see_through(client: Client, job: Job, deadline: float, how: How, tell: Tell) -> Job:
    """Until it has ended, saying what has become of each; `Unknown` when it is not known in time."""
    number, told = job.job, set[int]()

    def show(job: Job) -> None:
        for index, step in enumerate(job.steps):
            if step.state == "done" and index not in told and not how.as_json:
                say(tell(step))
                told.add(index)

    show(job)
    while job.ended is None:
        left = deadline - time.monotonic()
        if left <= 0:
            late = ", ".join(describe(step) for step in job.steps if step.state == "working")
            raise _unknown(client, number, f"{late} after {how.timeout:g} s")
        try:
            job = jobs.wait(client, job, left)
        except (NoDaemon, Unknown, NotFound) as error:
            raise _unknown(client, number, str(error)) from None
        show(job)
    return job


def _unknown(client: Client, number: int, why: str) -> Unknown:
    later = f"later: viscript job {number}" + (f" --host {client.host}" if client.host else "")
    return Unknown(f"unknown, job {number}: {why}; {later}", job=number, host=client.host)
