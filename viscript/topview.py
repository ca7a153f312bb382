"""The table of `viscript top`: which keys do what, what stands where. Pure."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from msgspec import Struct

from viscript.output import size
from viscript.records import Status, Usage
from viscript.words import one_line


class Host(Struct, kw_only=True):
    """One host and viscript's own share of it. Bytes and Unix seconds."""

    host: str
    at: float
    since: float  # of its daemon
    cpus: int
    load: tuple[float, float, float]
    memory: int
    memory_free: int  # that programs could have
    daemon: Usage | None = None
    broker: Usage | None = None


class Frame(Struct):
    """What one look shows: `usage` is of those of the launches that run."""

    host: Host
    launches: list[Status]
    usage: list[Usage]


SORTS = {
    "c": "cpu", "m": "mem", "t": "threads", "f": "files", "b": "bus", "i": "id", "n": "app",
}  # fmt: skip
HELP = (
    "c m t f b i n   sort by CPU, memory, threads, files, bus bytes, id, name",
    "r               the other way round",
    "+ -             look more often, less often",
    "space           look now",
    "j k, arrows     scroll",
    "h ?             this help",
    "q               end",
)
FASTEST, SLOWEST = 0.25, 60.0

PLAIN, BOLD, REVERSE, GOOD, WARN, BAD = "plain", "bold", "reverse", "good", "warn", "bad"
_STYLES = {
    "failed": BAD, "lost": BAD, "backoff": WARN, "blocked": WARN, "starting": WARN, "stopping": WARN,
}  # fmt: skip
Line = tuple[str, str]  # text and style


@dataclass(frozen=True)
class View:
    """What the user has chosen."""

    sort: str = "cpu"
    backwards: bool = False
    interval: float = 2.0
    top: int = 0  # the first row shown
    help: bool = False
    over: bool = False
    now: bool = False  # look at once


def pressed(view: View, key: str) -> View:
    """The view after a key; what means nothing changes nothing."""
    view = replace(view, now=False)
    changes: dict[str, Any] = {}
    match key:
        case "q" | "Q" | "\x03" | "\x04":
            changes = {"over": True}
        case "h" | "?":
            changes = {"help": not view.help}
        case "r":
            changes = {"backwards": not view.backwards}
        case "+":
            changes = {"interval": max(FASTEST, view.interval / 2), "now": True}
        case "-":
            changes = {"interval": min(SLOWEST, view.interval * 2)}
        case " ":
            changes = {"now": True}
        case "j" | "\x1b[B" | "\x1bOB":
            changes = {"top": view.top + 1}
        case "k" | "\x1b[A" | "\x1bOA":
            changes = {"top": max(0, view.top - 1)}
        case _ if key in SORTS:
            changes = {"sort": SORTS[key], "backwards": False, "top": 0}
        case _:
            pass
    return replace(view, **changes)


Row = tuple[Host, Status, Usage | None]


def ordered(frames: Sequence[Frame], view: View) -> list[Row]:
    """Launches with what they use, the most first; names and ids from the smallest."""
    rows: list[Row] = []
    for frame in frames:
        usage = {each.id: each for each in frame.usage}
        rows += [(frame.host, status, usage.get(status.id)) for status in frame.launches]
    rows.sort(key=lambda row: row[1].id)
    if view.sort == "app":
        rows.sort(key=lambda row: row[1].app)
    elif view.sort != "id":
        rows.sort(key=lambda row: _amount(row[2], view.sort), reverse=True)
    return rows[::-1] if view.backwards else rows


def _amount(used: Usage | None, sort: str) -> float:
    if used is None:
        return -1.0
    match sort:
        case "mem":
            return used.rss
        case "threads":
            return used.threads
        case "files":
            return used.open_files
        case "bus":
            return (used.bus_in_rate or 0) + (used.bus_out_rate or 0)
        case _:
            return used.cpu_percent


HEAD = (
    "ID",
    "APP",
    "STATE",
    "CPU %",
    "MEMORY",
    "PROCS",
    "THR",
    "FILES",
    "IN/s",
    "OUT/s",
    "FOR",
    "",
)
_SORTED = {"id": 0, "app": 1, "cpu": 3, "mem": 4, "threads": 6, "files": 7, "bus": 8}
_LEFT = {1, 2, 11}  # columns of words; the others end at the right


def lines(
    frames: Sequence[Frame], view: View, width: int, height: int, notice: str = ""
) -> list[Line]:
    """At most `height` lines of at most `width` cells; a frame for each host that answers."""
    shown: list[Line] = [(text, BOLD) for frame in frames for text in _host(frame)]
    shown.append(
        (one_line(notice), BAD) if notice else (f"every {view.interval:g} s  h help  q end", PLAIN)
    )
    if view.help:
        shown += [(text, PLAIN) for text in HELP]
    else:
        shown += _table(frames, view, max(0, height - len(shown)))
    return [(cut(text, width), style) for text, style in shown[:height]]


def _table(frames: Sequence[Frame], view: View, height: int) -> list[Line]:
    rows = ordered(frames, view)
    first = min(view.top, max(0, len(rows) - height + 1))
    counted = {(host.host, status.app) for host, status, _ in rows if status.instance}
    cells = [_row(*row, several=len(frames) > 1, counted=counted) for row in rows]
    head = list(HEAD)
    head[_SORTED[view.sort]] += "^" if view.backwards else "*"
    widths = [max(map(_cells, column)) for column in zip(head, *cells, strict=True)]
    styles = [_STYLES.get(status.state, PLAIN) for _, status, _ in rows]
    found = [(_joined(head, widths), REVERSE)]
    found += [
        (_joined(row, widths), style)
        for row, style in list(zip(cells, styles, strict=True))[first : first + max(0, height - 1)]
    ]
    return found


def _row(
    host: Host, status: Status, used: Usage | None, *, several: bool, counted: set[tuple[str, str]]
) -> list[str]:
    """`counted` are apps of which there are several instances."""
    now = host.at
    app = f"{host.host}:{status.app}" if several else status.app
    app += f":{status.instance}" if (host.host, status.app) in counted else ""
    told = [str(status.id), one_line(app), status.state]
    if used is None:
        told += ["-"] * 7
    else:
        told += [
            f"{used.cpu_percent:.1f}", size(used.rss), str(used.processes), str(used.threads),
            str(used.open_files), _rate(used.bus_in_rate), _rate(used.bus_out_rate),
        ]  # fmt: skip
    return [*told, duration(now - status.since), _remark(status, now)]


def _remark(status: Status, now: float) -> str:
    if status.next_try is not None:
        return f"again in {max(0.0, status.next_try - now):.0f} s"
    restarted = f"restarted {status.restarts}x" if status.restarts else ""
    return "; ".join(one_line(part) for part in (restarted, status.reason) if part)


def _rate(value: float | None) -> str:
    return "-" if value is None else size(value)


def _host(frame: Frame) -> list[str]:
    host = frame.host
    states = Counter(status.state for status in frame.launches)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    load = " ".join(f"{each:.2f}" for each in host.load)
    memory = f"{size(host.memory - host.memory_free)} of {size(host.memory)}"
    own = [
        f"{name} {used.cpu_percent:.1f} % {size(used.rss)}"
        for name, used in (("daemon", host.daemon), ("broker", host.broker)) if used is not None
    ]  # fmt: skip
    up, name = duration(host.at - host.since), one_line(host.host)
    bar = "  |  " if own else ""
    return [
        f"{name}  up {up}  load {load} on {host.cpus} CPUs  memory {memory}",
        f"{len(frame.launches)} launches{': ' if counts else ''}{counts}{bar}{', '.join(own)}",
    ]


def _joined(row: Sequence[str], widths: list[int]) -> str:
    cells = []
    for position, (text, width) in enumerate(zip(row, widths, strict=True)):
        space = " " * (width - _cells(text))
        cells.append(text + space if position in _LEFT else space + text)
    return "  ".join(cells).rstrip()


def duration(seconds: float) -> str:
    """As people say it: 42 s, 3 min, 5 h, 2 d."""
    seconds = max(0.0, seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def cut(text: str, width: int) -> str:
    """As much of `text` as fits into `width` cells of a terminal."""
    if text.isascii():
        return text[:width]
    used, kept = 0, []
    for character in text:
        used += _cells(character)
        if used > width:
            break
        kept.append(character)
    return "".join(kept)


def _cells(text: str) -> int:
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(x) in "WF" for x in text)
    return len(text) + wide - sum(unicodedata.combining(x) != 0 for x in text)
