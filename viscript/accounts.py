"""Whether an app can run as the user and group that its entry names: looked at when it is started."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from typing import Any

from viscript.config import App
from viscript.errors import BadConfig
from viscript.words import did_you_mean


def check(app: App) -> None:
    """`BadConfig` when they do not exist here, or only root may become them and we are not."""
    user = _number(app, "user", app.user, pwd.getpwnam, _users)
    group = _number(app, "group", app.group, grp.getgrnam, _groups)
    others = user not in {None, os.geteuid()}
    if os.geteuid() == 0:
        return
    if others:
        raise _bad(
            app, "user", f"only a daemon of root can run it as {app.user}; leave it out here"
        )
    if group not in {None, os.getegid()}:
        problem = f"only a daemon of root can run it in {app.group}; leave it out here"
        raise _bad(app, "group", problem)


def _number(
    app: App, key: str, word: str | None, look: Callable[[str], Any],
    known: Callable[[], list[str]],
) -> int | None:  # fmt: skip
    if word is None:
        return None
    if word.isdecimal():  # the kernel needs no name for it
        number = int(word)
        if number >= (1 << 32) - 1:
            raise _bad(app, key, f"{word} is no number of a {key}")
        return number
    try:
        found: int = look(word)[2]
    except KeyError:
        hint = did_you_mean(word, known())
        raise _bad(app, key, f"there is no {key} {word!r} on this machine{hint}") from None
    return found


def _users() -> list[str]:
    return [entry.pw_name for entry in pwd.getpwall()]


def _groups() -> list[str]:
    return [entry.gr_name for entry in grp.getgrall()]


def _bad(app: App, key: str, problem: str) -> BadConfig:
    return BadConfig(f"{app.places.get(key, app.place)}: apps.{app.name}.{key}: {problem}")
