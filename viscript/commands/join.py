"""`viscript join` and `viscript leave`: this home becomes a host of another's cluster, or stops being one."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from viscript.cluster import files
from viscript.cluster.files import Membership
from viscript.errors import BadUsage, Conflict, Denied, Unknown
from viscript.home import DaemonLock
from viscript.output import document, note, say

if TYPE_CHECKING:
    from bus.identity import Address, KeyPair
    from bus.wire import Enrolled
    from viscript.cluster.registry import RoleName
    from viscript.home import Home

PATIENCE = 10.0  # seconds for the broker of the cluster, which may be busy, to answer
PAUSE = 5.0  # seconds between two looks whether an admin has decided: too many are turned away


def enrol(
    home: Home, address: Address, token: str, *, name: str, grant: RoleName, wait: float
) -> dict[str, object]:
    """Have the daemon's key of this home admitted, and remember where; it must be down meanwhile."""
    from bus import keystore

    home.create()
    lock = _alone(home)
    try:
        before = _check(home, address)
        keypair = keystore.load_or_create(home.keys / "daemon.key")
        keystore.load_or_create(home.keys / "cli.key")
        called = name or (before.name if before else "") or socket.gethostname()
        answer = _ask(address, keypair, called, token, time.monotonic() + wait)
        if before is None:
            put_aside(home)
        first = before.first if before is not None else ""
        files.save_membership(
            home,
            Membership(
                endpoint=address.endpoint, broker_key=address.key, name=called, grant=grant, first=first
            ),
        )  # fmt: skip
    finally:
        lock.release()
    return {
        "home": str(home.root),
        "endpoint": address.endpoint,
        "broker_key": address.key,
        "key": keypair.public,
        "fingerprint": answer.fingerprint,
    }


def _check(home: Home, address: Address) -> Membership | None:
    """What this home has joined already, if it is the same; `Conflict` if it cannot join this one."""
    before = files.load_membership(home)
    if before is not None and before.broker_key != address.key:
        raise Conflict(
            f"{home.root}: has joined the cluster at {before.endpoint}; first: viscript leave"
        )
    registry = files.load_registry(home)
    if registry is not None and registry.hosts:
        names = ", ".join(host.name for host in registry.hosts)
        raise Conflict(
            f"{home.root}: is the first host of a cluster itself ({names}); first: viscript host rm, or "
            "use another --home"
        )
    return before


def _ask(address: Address, keypair: KeyPair, name: str, token: str, deadline: float) -> Enrolled:
    """Ask, while it is pending again until `deadline` (monotonic); `Denied`, `Unknown`."""
    from bus import join
    from viscript.commands.bus.connection import translated
    from viscript.commands.bus.where import Where

    told = False
    while True:
        try:
            with translated(Where(address, Path(), address.endpoint)):
                answer = join.enrol(address, keypair, name, token, timeout=PATIENCE)
        except Denied:
            raise Denied(
                f"{address.endpoint} has nobody join now: the join string was used or has expired, or this "
                "host was revoked; ask for a new one: viscript host invite"
            ) from None
        left = deadline - time.monotonic()
        if answer.state != "pending" or left <= 0:
            break
        if not told:
            note(f"waiting for an admin of the cluster; our fingerprint: {answer.fingerprint}")
            told = True
        time.sleep(min(PAUSE, left))
    if answer.state == "pending":
        raise Unknown(
            f"an admin has not decided yet; there: viscript host accept {answer.fingerprint}, then this again"
        )
    if answer.state != "accepted":
        raise Denied(
            f"{address.endpoint} does not admit this host ({answer.fingerprint}): a join string admits once "
            "and for ten minutes; ask for a new one: viscript host invite"
        )
    if answer.roles != ["host"]:
        raise Denied(
            f"this was no invitation of a host, it admits as {' '.join(answer.roles)}; ask for one made by: "
            "viscript host invite"
        )
    return answer


def told(fields: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        document(fields)
    else:
        say(f"joined the cluster at {fields['endpoint']}; our fingerprint: {fields['fingerprint']}")


def leave(home: Home, *, as_json: bool) -> None:
    """Forget the cluster; what it knows of us is its admin's to remove."""
    if files.load_membership(home) is None:
        raise BadUsage(f"{home.root}: has joined no cluster")
    lock = _alone(home)
    try:
        put_aside(home)
        for name in ("cluster.json", "state/known-hosts.json"):
            (home.root / name).unlink(missing_ok=True)
    finally:
        lock.release()
    if as_json:
        document({"home": str(home.root), "left": True})
    else:
        say("left the cluster; there: viscript host rm NAME")


def _alone(home: Home) -> DaemonLock:
    """`Conflict` while a daemon or anything else of this home runs."""
    from viscript.commands.down import leftovers

    try:
        lock = DaemonLock(home)
    except Conflict:
        raise Conflict(
            f"{home.root}: everything must be down for this; first: viscript down"
        ) from None
    if leftovers(home):
        lock.release()
        raise Conflict(f"{home.root}: something still runs; first: viscript down")
    return lock


def put_aside(home: Home) -> None:
    """Launches, events and logs with the ids from before, which are not those to come; they are kept."""
    old = [*home.database.parent.glob("viscript.db*"), *home.database.parent.glob("events.jsonl*")]
    old += [home.database.parent / "jobs.db"] if (home.database.parent / "jobs.db").exists() else []
    logs = list(home.logs.glob("[0-9]*-*"))
    if not home.database.exists() and not logs:
        return
    aside = home.root / time.strftime("before-%Y%m%d-%H%M%S")
    for path in [*old, *logs]:
        to = aside / path.relative_to(home.root)
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.replace(to)
