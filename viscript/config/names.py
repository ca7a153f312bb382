"""What only a whole file can get wrong: names that are taken or missing, circles, waits without an end."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

from viscript.config.entry import Entry
from viscript.config.model import App
from viscript.config.nodes import Reader
from viscript.config.values import NAME
from viscript.words import did_you_mean


def check(reader: Reader, entries: Mapping[str, Entry]) -> list[str]:
    """What is wrong with aliases, which are unique, and with `after`: it names apps that can come so far."""
    apps = {name: entry.app for name, entry in entries.items()}
    owner = {name: name for name in apps}
    problems = []
    for name, entry in entries.items():
        for alias, node in zip(entry.app.short, entry.short, strict=True):
            if not NAME.fullmatch(alias) or owner.setdefault(alias, name) != name:
                taken = f"is taken by {owner[alias]!r}" if alias in owner else "is not a name"
                problems.append(str(reader.bad(node, f"apps.{name}.short: {alias!r} {taken}")))
        for after, node in zip(entry.app.after, entry.after, strict=True):
            if (problem := _unreachable(after.app, after.until, apps)) is not None:
                problems.append(str(reader.bad(node, f"apps.{name}.after: {problem}")))
    if (circle := _circle(apps)) is not None:
        told = f"apps.{circle[0]}.after: a circle: {' -> '.join(circle)}"
        problems.append(str(reader.bad(entries[circle[0]].node, told)))
    return problems


def _unreachable(other: str, until: str, apps: Mapping[str, App]) -> str | None:
    if other not in apps:
        return f"no app {other!r}{did_you_mean(other, apps)}"
    if until == "completed" and apps[other].restart.policy == "always":
        return f"{other!r} never completes: it is always started again (restart: always)"
    if apps[other].instances == 0:
        return f"{other!r} never runs: it has no instances (instances: 0)"
    return None


def _circle(apps: Mapping[str, App]) -> list[str] | None:
    """A way along `after` back to where it begins, at the first of them in the file."""
    graph = {name: [after.app for after in app.after] for name, app in apps.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        way: list[str] = error.args[1][
            :0:-1
        ]  # each came before the next, the first is also the last
        written = {name: number for number, name in enumerate(graph)}
        begin = way.index(min(way, key=written.__getitem__))
        return [*way[begin:], *way[:begin], way[begin]]
    return None
