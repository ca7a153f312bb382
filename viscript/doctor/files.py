"""Whether what is in the home is whole, private and ours. Looks, and touches nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bus.access import AccessError
from bus.errors import KeyFileError
from viscript import catalog, config
from viscript.doctor.model import Finding, broken, warning, well
from viscript.errors import BadConfig, ViscriptError
from viscript.home import Home


def home(place: Home) -> list[Finding]:
    """Owners and modes of its folders, and whether we may write there."""
    if not place.root.exists():
        return [well("home", "there is none yet; viscript up makes it", str(place.root))]
    found = [x for folder in _folders(place) for x in _folder(folder, place.root)]
    return found or [well("home", "private and writable", str(place.root))]


def _folders(place: Home) -> Iterator[Path]:
    yield place.root
    for folder in place.folders:
        if os.path.lexists(folder):  # also what leads nowhere
            yield folder


def _folder(folder: Path, root: Path) -> Iterator[Finding]:
    where = str(folder)
    try:
        seen = folder.stat()
    except OSError as error:
        yield broken(
            "home", f"cannot be looked at: {error.strerror}", where, "choose another --home"
        )
        return
    if not stat.S_ISDIR(seen.st_mode):
        yield broken("home", "is no folder", where, f"move it away: mv {where} {where}.old")
        return
    if seen.st_uid != os.getuid():
        todo = (
            f"become its owner, or choose another --home (as root: chown -R {os.getuid()} {where})"
        )
        yield broken("home", f"belongs to another user (uid {seen.st_uid})", where, todo)
    forbidden = 0o022 if folder == root else 0o077
    if seen.st_mode & forbidden:
        shown = f"open to other users (mode {stat.S_IMODE(seen.st_mode):04o})"
        yield broken("home", shown, where, f"chmod 700 {where}")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        todo = f"chmod 700 {where}; or make the file system writable again"
        yield broken("home", "cannot be written", where, todo)


def keys(place: Home) -> list[Finding]:
    """Whether every key file is private and whole, and the access list too."""
    from bus import keystore  # which needs libzmq: that may be what is wrong

    found = []
    names = sorted([*place.keys.glob("*.key"), *place.keys.glob("apps/*.key")])
    for path in names:
        try:
            keystore.load(path)
        except KeyFileError as error:
            found.append(_told("keys", str(error), path))
    if place.access.exists():
        try:
            keystore.load_access(place.access)
        except (KeyFileError, AccessError, OSError) as error:
            found.append(_told("keys", str(error), place.access))
    return found or [well("keys", f"{len(names)} key files, private and whole", str(place.keys))]


def _told(check: str, problem: str, path: Path) -> Finding:
    """A message of the form `place: what; what to do`, in its parts."""
    text, _, todo = problem.removeprefix(f"{path}: ").partition("; ")
    return broken(check, text, str(path), todo.removeprefix("run: ") or "move it away")


def configuration(file: Path) -> list[Finding]:
    """Whether it can be read, and whether each app could be started here."""
    try:
        settings = config.load(file)
    except BadConfig as error:
        return [broken("config", str(error), str(file), "mend it, then: viscript config check")]
    except (ViscriptError, OSError) as error:
        return [broken("config", str(error), str(file), "name another with --config")]
    found = []
    for app in settings.apps.values():
        try:
            catalog.command(settings, app, (), os.environ.get("PATH", os.defpath))
        except (ViscriptError, OSError) as error:
            todo = f"mend it or take it out; its values: viscript show {app.name}"
            found.append(
                warning("config", f"{app.name} cannot be started: {error}", app.place, todo)
            )
    return found or [well("config", f"{len(settings.apps)} apps that can be started", str(file))]


def newest(place: Home) -> float:
    """When the youngest of its own files was written, Unix seconds; 0 without any."""
    files = [
        place.lock,
        place.daemon,
        place.access,
        place.broker,
        *place.database.parent.glob("*.json*"),
    ]
    times = [0.0]
    for file in (*files, *place.keys.glob("*.key")):
        try:
            times.append(file.stat().st_mtime)
        except OSError:
            continue
    return max(times)
