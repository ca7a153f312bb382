"""What a changed configuration does to what runs: which values differ, and what each takes to take effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cache
from typing import Any

from msgspec import Struct

from viscript.config import shown
from viscript.config.model import App, Config
from viscript.rules import Plan, Probe, RestartRule

Rows = Mapping[str, Any]  # as `compact` makes them


class Effect(StrEnum):
    """What a changed value takes; later ones include earlier ones."""

    LIVE = "live"  # a rule of ours: taken over as it runs
    NEXT = "next start"  # nothing worth a restart: the next start, whenever it comes, takes it over
    RESTART = "restart"  # a program only sees it when it starts


WHY = {
    "path": "another program", "default_args": "arguments", "args": "arguments",
    "env": "environment", "env_file": "environment", "cwd": "working folder",
    "role": "its key's role on the bus", "limits": "resource limits", "nice": "priority",
    "user": "whom it runs as", "group": "whom it runs as", "umask": "umask", "terminal": "terminal",
    "alive": "its watchdog",
}  # fmt: skip
CONTENTS = "env_file.contents"
_NEXT = frozenset({"log", "ready"})


class Change(Struct, frozen=True):
    """One value that differs, in the words of the file."""

    key: str
    before: Any
    after: Any
    effect: Effect


class AppPlan(Struct, frozen=True):
    """What becomes of one app, and why."""

    app: str
    does: str  # add, remove, restart, change
    running: int  # launches that are up
    changes: tuple[Change, ...] = ()
    starts: bool = False
    why: str = ""  # of a start, stop or restart


class Outcome(Struct, frozen=True):
    """All that differs; apps that stay as they are are not in it."""

    apps: tuple[AppPlan, ...]
    settings: tuple[Change, ...]

    @property
    def orders(self) -> Plan:
        """The same for the launcher."""
        up = [x for x in self.apps if x.running]
        return Plan(
            stop=tuple(x.app for x in up if x.does == "remove"),
            restart=tuple(x.app for x in up if x.does == "restart"),
            update=tuple(x.app for x in up if x.does == "change"),
            scale=tuple((x.app, _count(x)) for x in up if x.does != "remove" and _scaled(x)),
            start=tuple(x.app for x in self.apps if x.starts),
        )


def compact(app: App, files: str = "") -> dict[str, Any]:
    """What an app was started with: the values that are not what they are without a word.

    `files` is the fingerprint of what its files of variables hold.
    """
    usual = _usual()
    found = dict(shown.flat(shown.app(app)))
    told = {key: value for key, value in found.items() if usual.get(key, _ABSENT) != value}
    return {**told, CONTENTS: files} if files else told


@cache
def _usual() -> dict[str, Any]:
    """What is meant without a word; also the details of rules and probes that there are not."""
    detailed = App(
        "", "", "", restart=RestartRule("always"), ready=Probe("bus"), alive=Probe("bus")
    )
    return {**dict(shown.flat(shown.app(detailed))), **dict(shown.flat(shown.app(App("", "", ""))))} | {
        "ready.bus": None, "alive.bus": None,
    }  # fmt: skip


def taken(before: Rows | None, app: App) -> dict[str, Any]:
    """What runs on with the new rules of `app`: what only a start takes over stays as it was."""
    found = compact(app)
    if before is None:
        return found
    kept = {key: value for key, value in before.items() if _effect(key) is not Effect.LIVE}
    return {key: value for key, value in found.items() if _effect(key) is Effect.LIVE} | kept


_ABSENT = object()


def make(
    old: Config,
    new: Config,
    running: Mapping[str, Sequence[Rows | None]],
    files: Mapping[str, str] | None = None,
) -> Outcome:
    """`running`: by app, what each launch that is up was started with; None: as `old` says.

    `files`: by app, the fingerprint of what its files of variables hold now.
    """
    plans = []
    for name in dict.fromkeys([*old.apps, *new.apps, *running]):
        started = [
            rows if rows is not None or name not in old.apps else compact(old.apps[name])
            for rows in running.get(name, ())
        ]
        holds = (files or {}).get(name, "")
        found = _app(name, old.apps.get(name), new.apps.get(name), started, holds)
        if found is not None:
            plans.append(found)
    return Outcome(tuple(plans), _settings(old, new))


def _app(
    name: str, old: App | None, new: App | None, started: Sequence[Rows | None], files: str
) -> AppPlan | None:
    up = len(started)
    if new is None:
        if old is None and not up:
            return None
        return AppPlan(name, "remove", up, why="no longer configured" if up else "")
    if old is None and not up:
        why = "new and marked autostart" if new.autostart else ""
        return AppPlan(name, "add", 0, starts=new.autostart, why=why)
    changes = _changes(old, new, started, files)
    if not changes:
        return None
    restarting = sorted({WHY[_part(c.key)] for c in changes if c.effect is Effect.RESTART})
    if restarting and up:
        return AppPlan(name, "restart", up, changes, why=", ".join(restarting) + " changed")
    marked = old is not None and new.autostart and not old.autostart and not up
    why = "now marked autostart" if marked else ""
    return AppPlan(name, "change", up, changes, starts=marked, why=why)


def _changes(
    old: App | None, new: App, started: Sequence[Rows | None], files: str
) -> tuple[Change, ...]:
    """Against what runs; against the old file when nothing does."""
    usual = _usual()
    befores = [rows for rows in started if rows is not None]
    if not befores and old is not None:
        befores = [compact(old)]
    found: dict[str, Change] = {}
    for before in befores:
        # Nothing is known of files that could not be read, or were not looked at.
        known = files if CONTENTS in before else ""
        wanted = compact(new, known) if known else {**compact(new), **_held(before)}
        for key in sorted(before.keys() | wanted.keys()):
            was, will = before.get(key, usual.get(key)), wanted.get(key, usual.get(key))
            if was != will:
                found.setdefault(key, Change(key, was, will, _effect(key)))
    return tuple(found.values())


def _held(before: Rows) -> Rows:
    return {CONTENTS: before[CONTENTS]} if CONTENTS in before else {}


def _effect(key: str) -> Effect:
    part = _part(key)
    if part == "alive":  # it is told where to say that it is well when it starts
        return Effect.RESTART if key == "alive.notify" else Effect.LIVE
    if part in WHY:
        return Effect.RESTART
    return Effect.NEXT if part in _NEXT else Effect.LIVE


def _part(key: str) -> str:
    return key.partition(".")[0]


def _scaled(plan: AppPlan) -> bool:
    return any(change.key == "instances" for change in plan.changes)


def _count(plan: AppPlan) -> int:
    after = next(change.after for change in plan.changes if change.key == "instances")
    return after if isinstance(after, int) else 1


def _settings(old: Config, new: Config) -> tuple[Change, ...]:
    """The broker keeps its place until everything is down; the other settings have no effect."""
    if old.endpoint == new.endpoint:
        return ()
    return (Change("settings.broker.endpoint", old.endpoint, new.endpoint, Effect.RESTART),)
