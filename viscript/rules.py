"""What the configuration says of an app's life: when again, after whom, how it is asked, how it is ended.

Seconds everywhere. They are stored with a launch, so that a daemon that takes it over keeps to them.
"""

from __future__ import annotations

import signal
from typing import Literal

from msgspec import Struct

Policy = Literal["never", "on-failure", "always"]
Until = Literal["started", "ready", "completed"]
ProbeKind = Literal["none", "bus", "tcp", "http", "exec", "log", "notify"]

# No second attempt heals: wrong usage, no permission, wrong configuration, not executable, not found.
HOPELESS = (64, 77, 78, 126, 127)


class RestartRule(Struct, frozen=True):
    """When an app that has ended is started again, and after how long."""

    policy: Policy = "never"
    delay: float = 0.5  # before the first attempt; doubles with each failure in a row
    cap: float = 60.0  # of that
    give_up: int = 0  # failures in a row after which it has failed; 0: never
    stable: float = 60.0  # of being ready, after which earlier failures are forgiven
    success: tuple[int, ...] = (0,)  # exit codes that are no failure
    never_codes: tuple[int, ...] = ()  # end it for good; none given: HOPELESS for on-failure


class After(Struct, frozen=True):
    """`app` must have come so far before this one is started."""

    app: str
    until: Until = "ready"


class Probe(Struct, frozen=True):
    """How to find out whether an app is ready, or still well.

    `target`: HOST:PORT of tcp, the URL of http, the words of exec, the regular expression of log; else empty.
    """

    kind: ProbeKind = "none"
    target: str | tuple[str, ...] = ""
    timeout: float = 2.0  # of one attempt
    every: float = 1.0  # between two
    failures: int = 3  # in a row, until what was well is not
    delay: float = 0.0  # before the first


class StopStep(Struct, frozen=True):
    """Send `signal`, then `wait` for the end."""

    signal: int = signal.SIGTERM
    wait: float = 10.0


class LogRule(Struct, frozen=True):
    """How much of what an app prints is kept. Bytes and seconds; 0: no such bound."""

    size: int = 10 << 20  # of one file; a full one is put aside
    files: int = 3  # with the one that is written
    age: float = 0.0  # of the oldest line in the file that is written
    total: int = 0  # of all files together
    gzip: bool = False  # what is put aside is compressed


NO_PROBE = Probe()
NO_RESTART = RestartRule()
LOGGED = LogRule()
STOP = (StopStep(signal.SIGTERM, 5.0),)


class Plan(Struct, frozen=True):
    """What a changed configuration does to what runs: names of apps."""

    stop: tuple[str, ...] = ()  # no longer configured
    restart: tuple[str, ...] = ()  # something changed that a program only sees when it starts
    update: tuple[str, ...] = ()  # only rules of ours changed: taken over as it runs
    scale: tuple[tuple[str, int], ...] = ()  # how many instances there are to be
    start: tuple[str, ...] = ()  # new and marked autostart
