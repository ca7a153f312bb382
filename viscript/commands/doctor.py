"""`viscript doctor`: what is wrong with this installation, where, and what to do."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from viscript.client import Client
from viscript.commands import completion, status
from viscript.completion.script import SHELLS
from viscript.doctor import files, machine, running
from viscript.doctor.model import Finding, broken, exit_code, warning, well
from viscript.errors import ViscriptError
from viscript.home import Home
from viscript.output import document, say

Check = Callable[[], list[Finding]]


def run(home: Home, config: Callable[[], Path], *, as_json: bool) -> int:
    """Print what was found; 0 well, 1 warnings, 2 broken."""
    found = look(home, config)
    code = exit_code(found)
    if as_json:
        document({"code": code, "home": str(home.root), "findings": found})
        return code
    for finding in found:
        _show(finding)
    say(("all is well", "it works, with warnings", "something is broken")[code])
    return code


def look(home: Home, config: Callable[[], Path]) -> list[Finding]:
    """All findings, in the order in which it makes sense to mend things."""
    checks: dict[str, Check] = {
        "python": lambda: [machine.python(sys.version_info[:3], sys.executable)],
        "libzmq": lambda: [_libzmq()],
        "limits": lambda: [
            machine.limits(_soft(resource.RLIMIT_NOFILE), _soft(resource.RLIMIT_NPROC))
        ],
        "disk": lambda: [machine.disk(space(home.root))],
        "clock": lambda: [machine.clock(time.time(), files.newest(home), str(home.root))],
        "home": lambda: files.home(home),
        "keys": lambda: files.keys(home),
        "config": lambda: files.configuration(config()),
        "daemon": lambda: running.daemon(home, _pulse),
        "keepers": lambda: running.launches(home),
        "sockets": lambda: running.sockets(home),
        "completion": _completion,
    }
    return [finding for name, check in checks.items() for finding in _checked(name, check)]


def _checked(name: str, check: Check) -> list[Finding]:
    """Also what a check itself stumbles over is a finding, and the others go on."""
    try:
        return check()
    except (ViscriptError, OSError, ImportError) as error:
        return [
            broken(
                name,
                f"cannot be checked: {error}",
                getattr(error, "filename", "") or "",
                "mend that; if a module is missing or damaged, install viscript anew",
            )
        ]


def _show(finding: Finding) -> None:
    mark = {"ok": "ok      ", "warning": "WARNING ", "broken": "BROKEN  "}[finding.level]
    where = f"  ({finding.where})" if finding.where else ""
    say(f"{mark} {finding.check}: {finding.text}{where}")
    if finding.todo:
        say(f"          do: {finding.todo}")


def _soft(limit: int) -> int:
    return resource.getrlimit(limit)[0]


def _libzmq() -> Finding:
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("pyzmq")
    except PackageNotFoundError:
        number = "(not installed)"
    try:
        from bus.errors import BusError
        from bus.sockets import new_context
    except ImportError as error:
        return machine.libzmq(number, f"cannot be imported: {error}")
    try:
        new_context().destroy(linger=0)
    except BusError as error:
        return machine.libzmq(number, str(error))
    return machine.libzmq(number, None)


def space(folder: Path) -> machine.Space:
    """Of the file system of the home, or of where it would be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    seen = os.statvfs(folder)
    inodes = seen.f_favail if seen.f_files else None
    return machine.Space(str(folder), seen.f_bavail * seen.f_frsize, inodes)


def _pulse(client: Client) -> str:
    reply = client.ask(status.SUBJECT, status.Request(), status.Reply, running.PATIENCE)
    return f"pid {reply.daemon.pid}, {sum(reply.launches.values())} launches"


def _completion() -> list[Finding]:
    found = []
    installed = [shell for shell in SHELLS if completion.installed(shell) is not None]
    for shell in installed:
        if not completion.installed(shell):
            text, todo = (
                f"that of {shell} is of another installation",
                f"viscript completion install {shell}",
            )
            found.append(warning("completion", text, completion.place(shell), todo))
    if not installed:
        return [well("completion", "not installed; if you like: viscript completion install")]
    return found or [well("completion", f"installed for {', '.join(installed)}")]
