"""A configuration in the words of its file: every value, written or not, and where it comes from."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from msgspec import Struct

from viscript.config.model import App, Config
from viscript.config.values import LIMITS, UNLIMITED
from viscript.rules import LogRule, Probe, RestartRule

Word: TypeAlias = "str | int | float | bool | None"
Tree: TypeAlias = "Word | list[Tree] | dict[str, Tree]"

DEFAULT = "default"
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_SIZES = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


class Row(Struct, frozen=True):
    """One value. `key` is like `restart.delay`, `origin` file:line or default."""

    key: str
    value: Tree
    origin: str


def file(config: Config) -> dict[str, Tree]:
    """All of it: written to a file, it loads as the same."""
    settings: dict[str, Tree] = dict(config.settings)
    if config.endpoint is not None:
        settings["broker"] = {"endpoint": config.endpoint}
    apps: dict[str, Tree] = {name: app(entry) for name, entry in config.apps.items()}
    return {"apps": apps, "settings": settings}


def app(entry: App) -> dict[str, Tree]:
    """One entry of `apps:` with every key."""
    return {
        "path": entry.path,
        "desc": entry.desc,
        "help": entry.help,
        "daemon": entry.daemon,
        "default_args": list(entry.default_args),
        "args": list(entry.args),
        "env": dict(entry.env),
        "env_file": list(entry.env_file),
        "cwd": entry.cwd,
        "autostart": entry.autostart,
        "instances": entry.instances,
        "restart": _restart(entry.restart),
        "after": [{"app": after.app, "until": after.until} for after in entry.after],
        "ready": _probe(entry.ready),
        "alive": _probe(entry.alive),
        "stop": [{"signal": of_signal(s.signal), "wait": of_seconds(s.wait)} for s in entry.stop],
        "reload": None if entry.reload is None else of_signal(entry.reload),
        "role": entry.role,
        "short": list(entry.short),
        "groups": list(entry.groups),
        "limits": {word: _limit(word, value) for word, value in entry.limits.items()},
        "nice": entry.nice,
        "user": entry.user,
        "group": entry.group,
        "umask": None if entry.umask is None else f"{entry.umask:03o}",
        "terminal": entry.terminal,
        "log": _log(entry.log),
    }


def rows(entry: App) -> tuple[Row, ...]:
    """Every value of an entry, with mappings taken apart, and where each comes from."""
    places = entry.places
    return tuple(
        Row(key, value, places.get(key) or _of_short_form(key, places) or DEFAULT)
        for key, value in flat(app(entry))
    )


def flat(tree: Mapping[str, Tree], prefix: str = "") -> Iterator[tuple[str, Tree]]:
    """The values of nested mappings, by keys with dots."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _of_short_form(key: str, places: Mapping[str, str]) -> str | None:
    """Where `restart: always` is, which is short for `restart: {policy: always}`; the same of probes."""
    part, _, last = key.rpartition(".")
    longer = any(written.startswith(f"{part}.") for written in places)
    return places.get(part) if last in {"policy", "bus"} and not longer else None


def text(value: Tree) -> str:
    """A value in one line, for people."""
    match value:
        case None:
            return "-"
        case bool():
            return "true" if value else "false"
        case list():
            return "[" + ", ".join(text(item) for item in value) + "]"
        case dict():
            return "{" + ", ".join(f"{key}: {text(item)}" for key, item in value.items()) + "}"
        case str():
            return value or '""'
        case _:
            return str(value)


# Parts.


def _restart(rule: RestartRule) -> dict[str, Tree]:
    if rule.policy == "never":
        return {"policy": rule.policy, "success": list(rule.success)}
    return {
        "policy": rule.policy,
        "delay": of_seconds(rule.delay),
        "cap": of_seconds(rule.cap),
        "give_up": rule.give_up,
        "stable": of_seconds(rule.stable),
        "success": list(rule.success),
        "never_codes": list(rule.never_codes),
    }


def _probe(probe: Probe | None) -> Tree:
    if probe is None or probe.kind == "none":
        return "none"
    target: Tree = list(probe.target) if isinstance(probe.target, tuple) else probe.target or True
    if probe.kind == "log":
        target = probe.target if isinstance(probe.target, str) else ""
    return {
        probe.kind: target,
        "timeout": of_seconds(probe.timeout),
        "every": of_seconds(probe.every),
        "failures": probe.failures,
        "delay": of_seconds(probe.delay),
    }


def _log(rule: LogRule) -> dict[str, Tree]:
    return {
        "size": of_bytes(rule.size),
        "files": rule.files,
        "age": of_seconds(rule.age),
        "total": of_bytes(rule.total),
        "gzip": rule.gzip,
    }


def _limit(word: str, value: int) -> Tree:
    if value == UNLIMITED:
        return "unlimited"
    kind = LIMITS[word]
    if kind == "seconds":
        return of_seconds(value)
    return of_bytes(value) if kind == "bytes" else value


def of_signal(number: int) -> str:
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:  # real-time signals have no names
        return str(number)


def of_seconds(seconds: float) -> str:
    """The largest unit that divides it: 90 is 90s, 120 is 2m."""
    for unit, size in _UNITS:
        if seconds and seconds % size == 0:
            return f"{int(seconds) // size}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def of_bytes(count: int) -> str:
    """The largest binary unit that divides it."""
    for unit, size in _SIZES:
        if count and count % size == 0:
            return f"{count // size}{unit}"
    return f"{count}B"
