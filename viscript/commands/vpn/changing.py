"""`viscript vpn on` and `off`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from viscript.commands import job as jobs
from viscript.commands import order, sd, start
from viscript.commands.verdict import verdict
from viscript.commands.vpn import APP, told
from viscript.commands.vpn.looking import namer
from viscript.errors import BadUsage, Denied, NoDaemon, NotFound, Unknown, ViscriptError
from viscript.output import document, note, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viscript.client import Client
    from viscript.home import Home
    from viscript.protocol import Job
    from viscript.records import Status

LOOK = 0.2  # seconds between two looks
FASTEST = "fastest"


def check(networks: Sequence[str], offload: str) -> None:
    """Refuse what the client would end with, before one that runs is ended; raises BadUsage."""
    from ipaddress import ip_network

    for text in networks:
        try:
            wide = not ip_network(text).prefixlen
        except ValueError as error:
            raise BadUsage(f"{error}; want for instance 192.0.2.0/24") from None
        if wide:
            raise BadUsage(f"{text} is everything")
    if offload not in {"auto", "off"}:
        raise BadUsage(f"--offload {offload!r}: want auto or off")


def on(
    home: Home, exits: Sequence[str], arguments: Sequence[str], timeout: float, *, as_json: bool
) -> None:
    """Start the client, or start it anew with other exits; the block, once there, stays between.

    Returns when there is a tunnel. `Unknown` when there is none in time: then nothing leaves this machine.
    """
    from viscript.client import Client

    deadline = time.monotonic() + timeout
    named = [_key(word) for word in exits]
    with Client(home) as client:
        if told.running(client) is not None:
            _carry_out(client, sd.SUBJECT, sd.Request(select=[APP]), deadline)
        request = start.Request(select=[APP], args=[*arguments, *named])
        try:
            _carry_out(client, start.SUBJECT, request, deadline)
        except NotFound as error:
            raise NotFound(f"{error}; its entry is in docs/vpn.md") from None
        found = _connected(client, deadline, timeout)
    if as_json:
        document(found)
    else:
        names = dict(zip(named, exits, strict=True))
        called = names.get(found.exit) or namer([found.exit])(found.exit)
        say(f"connected to {called}, as {' and '.join(found.addresses)}")


def off(home: Home, timeout: float, *, as_json: bool) -> None:
    """End the client and put everything back, also where no daemon runs any more."""
    _stop(home, time.monotonic() + timeout)
    was = told.mend(home, "look").on
    report = told.mend(home, "off")
    left = [part for part in report.parts if part.todo]
    if as_json:
        document(report)
    else:
        say("off: everything is as it was" if was else "it was off already")
        if report.problem:
            note(report.problem)
    if left:
        texts = "; ".join(f"{part.part}: {part.text} (do: {part.todo})" for part in left)
        raise ViscriptError(f"not all could be put back: {texts}")


def _stop(home: Home, deadline: float) -> None:
    """Without a daemon the client ends by itself once everything is put back."""
    from viscript.client import Client

    try:
        with Client(home) as client:
            if told.running(client) is not None:
                _carry_out(client, sd.SUBJECT, sd.Request(select=[APP]), deadline)
    except Denied:
        raise
    except (NoDaemon, Unknown) as error:
        note(f"the client is not stopped by the daemon: {error}")


def _key(word: str) -> str:
    """The key of a node that is named as the user names it; what is not known here the node may know."""
    from viscript.commands.node.mesh import Mesh

    if word == FASTEST:
        return word
    try:
        with Mesh() as mesh:
            return mesh.find(word)
    except NoDaemon:
        return word


def _connected(client: Client, deadline: float, timeout: float) -> told.Told:
    trouble = "it is starting"
    while time.monotonic() < deadline:
        launch = told.running(client)
        if launch is None or launch.state == "failed":
            way = f"see: viscript logs {APP}. What it blocked stays so until: viscript vpn off"
            raise ViscriptError(f"{APP} has ended{_why(launch)}; {way}")
        found = told.ask(client, launch)
        if found.state == "connected":
            return found
        trouble = found.trouble or trouble
        time.sleep(LOOK)
    raise Unknown(
        f"no tunnel after {timeout:g} s: {trouble}. It goes on trying, and nothing leaves meanwhile; "
        "see: viscript vpn status; give up: viscript vpn off"
    )


def _why(launch: Status | None) -> str:
    return f": {launch.reason}" if launch is not None and launch.reason else ""


def _carry_out(client: Client, subject: str, request: order.Request, deadline: float) -> None:
    """Place an order and wait until it is done; raises its verdict."""
    job: Job | None = client.ask(subject, request, order.Reply).job
    while job is not None and job.ended is None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Unknown(f"unknown, job {job.job}; later: viscript job {job.job}", job=job.job)
        job = jobs.wait(client, job, left)
    if job is not None and (problem := verdict(job)) is not None:
        raise problem
