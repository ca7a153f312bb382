"""What only a whole file can get wrong: names that are taken or missing, circles, waits without an end."""

from __future__ import annotations

from collections.abc import Mapping

from viscript.config.entry import Entry
from viscript.config.model import App
from viscript.config.nodes import Reader
from viscript.config.values import NAME
from viscript.words import did_you_mean


def check(reader: Reader, entries: Mapping[str, Entry]) -> None:
    """`BadConfig` unless aliases are unique and `after` names apps that can come so far."""
    apps = {name: entry.app for name, entry in entries.items()}
    owner = {name: name for name in apps}
    for name, entry in entries.items():
        for alias, node in zip(entry.app.short, entry.short, strict=True):
            if not NAME.fullmatch(alias) or owner.setdefault(alias, name) != name:
                taken = f"is taken by {owner[alias]!r}" if alias in owner else "is not a name"
                raise reader.bad(node, f"apps.{name}.short: {alias!r} {taken}")
        for after, node in zip(entry.app.after, entry.after, strict=True):
            if (problem := _unreachable(after.app, after.until, apps)) is not None:
                raise reader.bad(node, f"apps.{name}.after: {problem}")
    for name, entry in entries.items():
        if (circle := _circle(name, apps)) is not None:
            raise reader.bad(entry.node, f"apps.{name}.after: a circle: {' -> '.join(circle)}")


def _unreachable(other: str, until: str, apps: Mapping[str, App]) -> str | None:
    if other not in apps:
        return f"no app {other!r}{did_you_mean(other, apps)}"
    if until == "completed" and apps[other].restart.policy == "always":
        return f"{other!r} never completes: it is always started again (restart: always)"
    if apps[other].instances == 0:
        return f"{other!r} never runs: it has no instances (instances: 0)"
    return None


def _circle(start: str, apps: Mapping[str, App]) -> list[str] | None:
    """A way from `start` along `after` back to it."""
    ways, seen = [[start]], {start}
    while ways:
        way = ways.pop()
        for following in (after.app for after in apps[way[-1]].after):
            if following == start:
                return [*way, start]
            if following not in seen:
                seen.add(following)
                ways.append([*way, following])
    return None
