"""`viscript top`: a live table of what everything uses; without a terminal the table once."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript import topview
from viscript.commands import everywhere
from viscript.commands.ru import DAEMON, measure
from viscript.commands.seen import seen
from viscript.errors import BadUsage, NoDaemon, NotFound, Unknown, ViscriptError
from viscript.output import document, say
from viscript.supervision.launch import BROKER
from viscript.topview import Frame, Host, View

if TYPE_CHECKING:
    from viscript.commands.everywhere import Answers
    from viscript.home import Home
    from viscript.launcher import Launcher
    from viscript.roles import Caller
    from viscript.terminal import Screen

SUBJECT = "viscript.top"
_BEGAN = time.time()
ANSWER = 15.0
WIDTH = 1000  # without a terminal nothing is cut off

STYLES = {
    topview.BOLD: "\x1b[1m", topview.REVERSE: "\x1b[7m", topview.GOOD: "\x1b[32m",
    topview.WARN: "\x1b[33m", topview.BAD: "\x1b[31m",
}  # fmt: skip
WITHOUT_COLOUR = {topview.BOLD: "\x1b[1m", topview.REVERSE: "\x1b[7m", topview.BAD: "\x1b[1m"}


class Request(Struct):
    words: list[str]


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Frame:
    """Everything that lives and is meant; a selector may match nothing just now."""
    try:
        records = seen(launcher, request.words, caller)
    except NotFound:
        if len(request.words) == 1 and request.words[0].isalnum():
            raise
        records = []
    usage = {each.id: each for each in await measure(launcher)}
    load = os.getloadavg()
    memory, free = _memory()
    host = Host(
        host=launcher.recorder.events.host if launcher.recorder else os.uname().nodename,
        at=time.time(), since=_BEGAN, cpus=os.cpu_count() or 1,
        load=(round(load[0], 2), round(load[1], 2), round(load[2], 2)),
        memory=memory, memory_free=free, daemon=usage.get(DAEMON), broker=usage.get(BROKER),
    )  # fmt: skip
    launches = [record.status() for record in records]
    return Frame(host, launches, [usage[x.id] for x in launches if x.id in usage])


def _memory() -> tuple[int, int]:
    """Bytes that there are, and that programs could have."""
    found = {}
    with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
        for line in file:
            name, _, rest = line.partition(":")
            found[name] = int(rest.split()[0]) * 1024
    return found["MemTotal"], found.get("MemAvailable", found["MemFree"])


@dataclass(frozen=True)
class Asked:
    """What the command line says."""

    words: list[str]
    interval: float
    sort: str


def run(home: Home, asked: Asked, *, once: bool, as_json: bool) -> None:
    """Live on a terminal, else one table; with JSON one document."""
    from viscript import terminal

    if asked.sort not in topview.SORTS.values():
        raise BadUsage(f"cannot sort by {asked.sort!r}; by {', '.join(topview.SORTS.values())}")
    view = View(sort=asked.sort, interval=asked.interval)
    if not once and not as_json and terminal.is_full(os.environ):
        _live(home, asked.words, view)
        return
    answers = _Source(home, asked.words).frames()
    frames = answers.replies
    if as_json:
        document(frames[0] if len(frames) == 1 else frames)
    else:
        height = sum(len(frame.launches) + 2 for frame in frames) + 2
        for text, _ in topview.lines(frames, view, WIDTH, height):
            if not text.startswith("every "):
                say(text)
    answers.complete()


class _Source:
    """Asks the daemon for frames, over one session as long as it holds."""

    def __init__(self, home: Home, words: list[str]) -> None:
        from viscript.client import Client

        self._home = home
        self._words = words
        self._client: Client | None = None

    def frames(self) -> Answers[Frame]:
        """`ViscriptError` when it cannot be had now; the next time a new session is tried."""
        from viscript.client import Client

        try:
            if self._client is None:
                self._client = Client(self._home).__enter__()
            return everywhere.ask(self._client, SUBJECT, Request(self._words), Frame, ANSWER)
        except ViscriptError:
            self.close()
            raise

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.__exit__()


class _Watch(threading.Thread):
    """Fetches frames beside the screen, so that keys are heard while the daemon is away."""

    def __init__(
        self, source: _Source, frames: list[Frame], screen: Screen, interval: float
    ) -> None:
        super().__init__(daemon=True)
        self.frames = frames
        self.problem = ""
        self.interval = interval
        self.due = threading.Event()
        self.over = threading.Event()
        self._source = source
        self._screen = screen

    def run(self) -> None:
        while not self.over.is_set():
            self.due.wait(self.interval)
            self.due.clear()
            if self.over.is_set():
                break
            try:
                answers = self._source.frames()
                self.frames = answers.replies
                self.problem = f"not reachable: {', '.join(answers.away)}" if answers.away else ""
            except (NoDaemon, Unknown) as error:
                age = time.time() - min(frame.host.at for frame in self.frames)
                self.problem = f"as it was {age:.0f} s ago: {error}"
            except ViscriptError as error:
                self.problem = str(error)
            self._screen.wake()
        self._source.close()


def _live(home: Home, words: list[str], view: View) -> None:
    from viscript import terminal

    source = _Source(home, words)
    frames = source.frames().replies  # what is wrong from the beginning is said as an error
    styles = WITHOUT_COLOUR if os.environ.get("NO_COLOR") else STYLES
    with terminal.screen(styles) as screen:
        watch = _Watch(source, frames, screen, view.interval)
        watch.start()
        try:
            while not view.over:
                width, height = screen.size
                screen.draw(topview.lines(watch.frames, view, width, height, watch.problem))
                for key in screen.keys(view.interval):
                    view = topview.pressed(view, key)
                    watch.interval = view.interval
                    if view.now:
                        watch.due.set()
        finally:
            watch.over.set()
            watch.due.set()
            watch.join(1.0)
