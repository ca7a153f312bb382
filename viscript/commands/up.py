"""`viscript up`: the daemon, its broker and the apps marked autostart; in the foreground or detached."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import msgspec

from viscript.commands import down
from viscript.commands.list import remark
from viscript.commands.logs import read_on
from viscript.errors import Conflict, Failed
from viscript.home import is_locked
from viscript.output import document, say
from viscript.protocol import Event, accept
from viscript.spawning import events, spawn_daemon
from viscript.supervisor import FINAL

if TYPE_CHECKING:
    from pathlib import Path

    from viscript.home import Home
    from viscript.records import Status

_QUIET = frozenset({"blocked", "starting", "stopping"})  # unless it waits for something


@dataclass
class Outcome:
    """What came of the apps while everything came up."""

    endpoint: str = ""
    launches: dict[int, Status] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)  # apps that were to be started


def run(home: Home, config: Path, *, detach: bool, as_json: bool) -> None:
    """Bring it up; without `detach` stay, show what happens, and take it down on Ctrl-C."""
    from viscript import config as configuration

    home.create()
    if is_locked(home.lock):
        raise Conflict(
            f"{home.root}: a daemon runs here already; see: viscript status, or use another --home"
        )
    configuration.load(config)  # what is wrong with it is said before anything is started
    stream = events(spawn_daemon(home, config))
    outcome = Outcome()
    try:
        _until_up(stream, outcome, home, as_json=as_json)
        if not detach:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            _stay(stream, outcome, home, as_json=as_json)
            return
    except KeyboardInterrupt:
        if not as_json:
            say("\nstopping everything")
        down.run(home, config, as_json=as_json)
        return
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


def _until_up(
    stream: Iterator[Event | None], outcome: Outcome, home: Home, *, as_json: bool
) -> None:
    for event in stream:
        if event is None:
            continue
        _take(event, outcome, quiet=as_json)
        if event.kind == "up":
            if not as_json:
                say(f"up: {home.root}")
            return
    raise Failed(f"the daemon ended before everything was up; see: {home.daemon_log}")


def _take(event: Event, outcome: Outcome, *, quiet: bool) -> None:
    match event.kind:
        case "error":
            raise accept(event.error, event.text)
        case "broker":
            outcome.endpoint = event.text
            text = f"broker listens at {event.text}"
        case "problem":
            outcome.problems[event.app] = event.text
            text = f"{event.app} is not started: {event.text}"
        case "up":
            outcome.failed = [*outcome.problems, *event.failed]
            text = ""
        case "launch" if event.launch is not None:
            before = outcome.launches.get(event.launch.id)
            outcome.launches[event.launch.id] = event.launch
            if before is not None and before.state == event.launch.state:
                return
            waits = event.launch.state == "blocked" and event.launch.reason
            quietly = event.launch.state in _QUIET and not waits
            text = "" if quietly else _line(event.launch)
        case _:
            return
    if text and not quiet:
        say(text)


def _line(status: Status) -> str:
    told = remark(status)
    return f"{status.app} (ID {status.id}) {status.state}{': ' if told else ''}{told}"


def _stay(stream: Iterator[Event | None], outcome: Outcome, home: Home, *, as_json: bool) -> None:
    """Show events and output until the daemon ends."""
    if as_json:
        for event in stream:
            if event is not None:
                sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
                sys.stdout.flush()
        return
    say("Ctrl-C stops everything.")
    outputs: dict[int, _Output] = {}
    for event in stream:
        _show_outputs(outputs, outcome, home)
        if event is not None:
            _take(event, outcome, quiet=False)
    say("the daemon has ended")


def _show_outputs(outputs: dict[int, _Output], outcome: Outcome, home: Home) -> None:
    for number, status in list(outcome.launches.items()):
        path = home.app_log(number, status.app)
        if number not in outputs and path.exists():
            outputs[number] = _Output(status.app, path)
        if number in outputs:
            outputs[number].show()
        if status.state in FINAL:
            del outcome.launches[number]
            if number in outputs:
                outputs.pop(number).close()


class _Output:
    """One program's log, shown line by line with its name before."""

    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self._path = path
        self._file: IO[bytes] = path.open("rb")
        self._rest = b""

    def show(self) -> None:
        data, self._file = read_on(self._path, self._file)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            say(f"{self._name} | {line.decode(errors='replace')}")

    def close(self) -> None:
        self.show()
        self._file.close()
