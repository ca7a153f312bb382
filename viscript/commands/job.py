"""`viscript job ls|show|cancel`: what was asked for, and what has become of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from viscript.commands import order
from viscript.errors import Denied, NotFound
from viscript.output import document, listing, moment, say
from viscript.protocol import Job
from viscript.roles import REMEDY, Role

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.job"
ROUND = 10.0  # seconds of one request; the answer comes earlier when something changes
MARGIN = 5.0


class Request(Struct):
    """`version`, with `wait`: answer when the job is newer, or after so many seconds."""

    what: Literal["list", "show", "cancel"]
    job: int = 0
    version: int = -1
    wait: float = 0.0


class Reply(Struct):
    jobs: list[Job]


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Reply:
    """Others' jobs are seen by who may see all that they are about; what may not be seen is not there."""
    desk = launcher.desk
    if request.what == "list":
        return Reply([job for job in desk.jobs() if _sees(caller, job)])
    job = desk.get(request.job)
    if not _sees(caller, job):
        raise NotFound(f"there is no job {request.job}; see: viscript job ls")
    if request.what == "cancel":
        if job.key != caller.key and (caller.role or 0) < Role.OPERATE:
            raise Denied(f"job {job.job} is of {job.by}; {REMEDY}")
        return Reply([desk.cancel(job.job, caller.name or caller.key)])
    if request.wait > 0:
        job = await desk.wait(job.job, request.version, order.bounded(request.wait, ROUND))
    for step in job.steps:
        if step.state == "working" and step.id is not None:
            step.launch = order.look(launcher, step.id).status()
    return Reply([job])


def _sees(caller: Caller, job: Job) -> bool:
    return job.key == caller.key or all(
        caller.may(Role.VIEW, step.launch or step) for step in job.steps
    )


def wait(client: Client, job: Job, timeout: float) -> Job:
    """As it is once it has changed, or after at most so many seconds."""
    request = Request("show", job.job, job.version, min(timeout, ROUND))
    return client.ask(SUBJECT, request, Reply, timeout=ROUND + MARGIN).jobs[0]


def ls(client: Client) -> None:
    jobs = client.ask(SUBJECT, Request("list"), Reply).jobs
    rows = (
        (str(job.job), job.verb, job.state, moment(job.asked), job.by, _targets(job))
        for job in jobs
    )
    listing(
        jobs,
        ("JOB", "VERB", "STATE", "ASKED", "BY", "TARGETS"),
        rows,
        "No jobs in the last 10 minutes.",
    )


def _targets(job: Job) -> str:
    shown = [f"{step.app} ({step.id})" if step.id else step.app for step in job.steps[:5]]
    return ", ".join(shown) + (f", {len(job.steps) - 5} more" if len(job.steps) > 5 else "")


def show(client: Client, number: int, *, timeout: float, as_json: bool) -> None:
    """What has become of it, waiting at most `timeout` seconds for its end; raises its verdict."""
    from viscript.commands.verdict import verdict
    from viscript.errors import Unknown

    deadline = time.monotonic() + timeout
    (job,) = client.ask(SUBJECT, Request("show", number), Reply).jobs
    while job.ended is None and (left := deadline - time.monotonic()) > 0:
        job = wait(client, job, left)
    _show(job, as_json=as_json)
    if job.ended is None:
        raise Unknown(
            f"unknown, job {number}: it is at work; wait: viscript job {number} --wait 60"
        )
    problem = verdict(job)
    if problem is not None:
        raise problem


def cancel(client: Client, number: int, *, as_json: bool) -> None:
    (job,) = client.ask(SUBJECT, Request("cancel", number), Reply).jobs
    _show(job, as_json=as_json)


def _show(job: Job, *, as_json: bool) -> None:
    if as_json:
        document(job)
        return
    say(f"job {job.job}: {job.verb}, {job.state}; asked for by {job.by} at {moment(job.asked)}")
    for step in job.steps:
        name = f"{step.app} (ID {step.id})" if step.id else step.app
        say(f"  {name}: {step.state}" + (f", {step.text}" if step.text else ""))
