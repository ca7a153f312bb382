"""`viscript up`: the daemon, its broker and the apps marked autostart; in the foreground or detached."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from viscript.errors import Failed
from viscript.home import is_locked, occupied
from viscript.output import document, say, warn
from viscript.protocol import Event, accept
from viscript.spawning import events, fork_daemon, skip_events, spawn_daemon
from viscript.supervision.states import FINAL

if TYPE_CHECKING:
    from pathlib import Path

    from viscript.home import Home
    from viscript.logfiles import Line
    from viscript.records import Status

_QUIET = frozenset({"blocked", "starting", "stopping"})  # unless it waits for something


Show = Callable[[Event | None, str], None]  # an event, and the same for people


Serve = Callable[["Home", "Path", int], int]


class Outcome(Struct):
    """What came of the apps while everything came up."""

    launches: dict[int, Status] = {}
    problems: dict[str, str] = {}
    failed: list[str] = []  # apps that were to be started


def run(home: Home, config: Path, serve: Serve, *, detach: bool, as_json: bool) -> None:
    """Bring it up; without `detach` stay, show what happens, and take it down on Ctrl-C.

    `serve` is the daemon: its end of a pipe for events is given to it, it gives its exit code.
    """
    home.create()
    if is_locked(home.lock):
        raise occupied(home)
    outcome = Outcome()
    show = _say if not as_json else _ignore if detach else _line_of_json
    # A terminal that is closed says what Ctrl-C says; who wants it to stay up uses --detach.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, signal.default_int_handler)
    read, write = os.pipe()
    try:
        _begin(home, config, serve, write)
        also: list[int] = []
        stream = events(read, also)
        _until_up(stream, outcome, home, show)
        if not detach:
            _stay(stream, also, outcome, home, show)
            return
    except KeyboardInterrupt:
        _end(home, config, read, show)
        return
    except OSError:  # nobody reads what is shown here any more
        if not detach:
            _end(home, config, read, _ignore)
        raise
    if as_json:
        from viscript.client import daemon_info

        info = daemon_info(home)
        document(
            {
                "home": str(home.root),
                "daemon": {"pid": info.pid, "key": info.key},
                "broker": {"endpoint": info.endpoint, "key": info.broker_key},
                "launches": list(outcome.launches.values()),
                "problems": outcome.problems,
            }
        )
    if outcome.failed:
        raise Failed(
            f"not everything came up: {', '.join(outcome.failed)}; the rest runs; see: viscript la"
        )


def _begin(home: Home, config: Path, serve: Serve, write: int) -> None:
    """Start the daemon: from what this process has imported, if it can be, else as a program.

    It is the daemon that reads the configuration and says what is wrong with it, before anything is started.
    """
    if not fork_daemon(home, write, lambda events: serve(home, config, events)):
        spawn_daemon(home, config, write)


def _say(_event: Event | None, text: str) -> None:
    if text:
        say(text)


def _line_of_json(event: Event | None, _text: str) -> None:
    if event is not None:
        sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        sys.stdout.flush()


def _ignore(_event: Event | None, _text: str) -> None:
    """One document follows at the end."""


def _end(home: Home, config: Path, stream: int, show: Show) -> None:
    """End everything, also what has only begun to start, and whether or not it can be shown."""
    from viscript.commands import down
    from viscript.commands.sd import describe

    problems: list[OSError] = []

    def tell(event: Event | None, text: str) -> None:
        if not problems:
            try:
                show(event, text)
            except OSError as problem:
                problems.append(problem)

    tell(None, "\nstopping everything")
    skip_events(stream, lambda: is_locked(home.lock) and home.daemon.exists())
    down.end_all(
        home, config, lambda status: tell(Event("launch", launch=status), describe(status)),
        lambda text: tell(None, text),
    )  # fmt: skip
    tell(None, "down: everything has ended")
    if problems:
        raise problems[0]


def _until_up(stream: Iterator[Event | None], outcome: Outcome, home: Home, show: Show) -> None:
    for event in stream:
        if event is None:
            continue
        show(event, _take(event, outcome))
        if event.kind == "up":
            show(None, f"up: {home.root}")
            return
    raise Failed(f"the daemon ended before everything was up; see: {home.daemon_log}")


def _take(event: Event, outcome: Outcome) -> str:
    """Keep what an event tells; returns it for people, if it is worth a line."""
    match event.kind:
        case "error":
            raise accept(event.error, event.text)
        case "broker":
            return f"broker listens at {event.text}"
        case "notice":
            return event.text
        case "warning":
            warn(event.text)
        case "problem":
            outcome.problems[event.app] = event.text
            return f"{event.app} is not started: {event.text}"
        case "up":
            outcome.failed = [*outcome.problems, *event.failed]
        case "launch" if event.launch is not None:
            before = outcome.launches.get(event.launch.id)
            outcome.launches[event.launch.id] = event.launch
            news = before is None or before.state != event.launch.state
            waits = event.launch.state == "blocked" and event.launch.reason
            if news and (waits or event.launch.state not in _QUIET):
                return _line(event.launch)
        case _:
            pass
    return ""


def _line(status: Status) -> str:
    from viscript.commands.list import remark

    told = remark(status)
    return f"{status.app} (ID {status.id}) {status.state}{': ' if told else ''}{told}"


def _stay(
    stream: Iterator[Event | None], also: list[int], outcome: Outcome, home: Home, show: Show
) -> None:
    """Show events and output until the daemon ends; `also` is what wakes the stream besides."""
    from viscript.changes import Changes

    show(None, "Ctrl-C stops everything.")
    outputs = _Outputs(outcome, home, show)
    with Changes(home.logs) as changes:
        also += [changes.fd] if changes.fd is not None else []
        outputs.show(outcome.launches)
        for event in stream:
            names = changes.gathered()
            outputs.show(outcome.launches if names is None else map(_number_in, names))
            if event is not None:
                show(event, _take(event, outcome))
                if event.launch is not None:
                    outputs.show([event.launch.id])
    show(None, "the daemon has ended")


def _number_in(name: str) -> int:
    """Of the launch whose log is called so; 0 if it is no log of one."""
    number, dash, _ = name.partition("-")
    return int(number) if dash and number.isdecimal() else 0


class _Outputs:
    """What programs print, of each as far as it was shown."""

    def __init__(self, outcome: Outcome, home: Home, show: Show) -> None:
        self._outcome = outcome
        self._home = home
        self._show = show
        self._open: dict[int, _Output] = {}

    def show(self, numbers: Iterable[int]) -> None:
        """What is new of these; those that have ended are closed."""
        for number in [x for x in numbers if x in self._outcome.launches]:
            status = self._outcome.launches[number]
            path = self._home.app_log(number, status.app)
            if number not in self._open and path.exists():
                self._open[number] = _Output(status.app, path, self._show)
            if number in self._open:
                self._open[number].show()
            if status.state in FINAL:
                del self._outcome.launches[number]
                if number in self._open:
                    self._open.pop(number).close()


class _Output:
    """One program's log, shown line by line with its name before."""

    def __init__(self, name: str, path: Path, show: Show) -> None:
        from viscript.logfiles import Reader

        self._name = name
        self._show = show
        self._reader = Reader(path)

    def show(self) -> None:
        for line in self._reader.lines():
            self._tell(line)

    def _tell(self, line: Line) -> None:
        self._show(None, f"{self._name} | {line.text.decode(errors='replace')}")

    def close(self) -> None:
        self.show()
        for line in self._reader.rest():
            self._tell(line)
        self._reader.close()
