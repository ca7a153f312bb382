"""The names of a home that completion offers: what could be started, what runs, jobs and hosts.

The daemon writes them to one small file a moment after something has changed; `viscript apps` and `help APP`
write the apps into it when no daemon has. It is a hint: who reads it expects it to be old, absent or wrong.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from viscript.errors import ViscriptError

if TYPE_CHECKING:
    from viscript.config import Config
    from viscript.home import Home
    from viscript.launcher import Launcher
    from viscript.records import Status

log = logging.getLogger(__name__)

DELAY = 0.2  # seconds after a change: what changes together is written once
MOST = 5000  # names of a kind


def apps(config: Config) -> list[dict[str, Any]]:
    """What could be started."""
    return [
        {"name": app.name, "help": app.desc, "short": app.short, "groups": app.groups}
        for app in config.apps.values()
    ][:MOST]


def launches(statuses: Iterable[Status]) -> list[dict[str, Any]]:
    """What runs or waits, as little of it as is offered."""
    fields = ("id", "app", "state", "host", "groups", "instance")
    return [{name: getattr(status, name) for name in fields} for status in statuses][:MOST]


def names(launcher: Launcher) -> dict[str, Any]:
    """Everything a daemon knows; of other hosts what they said last."""
    hosts, elsewhere = _cluster(launcher.home)
    here = (record.status() for record in launcher.records.values())
    jobs = [{"id": job.job, "text": f"{job.verb}, {job.state}"} for job in launcher.desk.jobs()]
    return {
        "apps": apps(launcher.config), "launches": launches([*here, *elsewhere]),
        "hosts": hosts[:MOST], "jobs": jobs[-MOST:],
    }  # fmt: skip


def _cluster(home: Home) -> tuple[list[str], list[Status]]:
    from viscript.cluster import files

    try:
        known, last = files.load_known(home), files.load_last(home)
    except (ViscriptError, OSError) as error:
        log.debug("the other hosts are not offered: %s", error)
        return [], []
    if known is None:
        return [], []
    others = [host.name for host in known.directory.hosts]
    return [known.name, *others], [x for seen in last.values() for x in seen.launches]


def write(home: Home, found: object) -> None:
    """Put `found` in the place of what there is; `OSError` when that cannot be."""
    fd, temporary = tempfile.mkstemp(dir=home.snapshot.parent, prefix=home.snapshot.name)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(found))
        Path(temporary).replace(home.snapshot)
    except OSError:
        with suppress(OSError):
            Path(temporary).unlink()
        raise


def read(home: Home) -> dict[str, Any]:
    """What there is; empty when there is nothing to be understood."""
    try:
        found = msgspec.json.decode(home.snapshot.read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def keep_apps(home: Home, config: Config) -> None:
    """Note what a command has read, if there is a home. That it cannot be is not the command's problem."""
    known, now = read(home), msgspec.to_builtins(apps(config))
    if known.get("apps") == now:
        return
    with suppress(OSError):
        write(home, {**known, "apps": now})


class Snapshots:
    """Keeps the file as what `collect` says, once `changed` was called."""

    def __init__(self, home: Home, collect: Callable[[], object]) -> None:
        self._home = home
        self._collect = collect
        self._timer: asyncio.TimerHandle | None = None

    def changed(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY, self.write)

    def write(self) -> None:
        """Now, and not once more for what has changed until now."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        try:
            write(self._home, self._collect())
        except OSError as error:  # completion offers what is known from before
            log.debug("%s: cannot be written: %s", self._home.snapshot, error)
