"""The states of a launch, how a run ended, and how long each state may last. Seconds."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

DEPENDENCIES = 60.0
SPAWN = 45.0  # the bus may be coming back just now
READY = 30.0
SETTLE = 0.25  # what falls over at once was never running
STOP = 25.0  # over the bus and, after all signals, KILL; the waits of the signals come on top
UNWELL = 10.0  # at least, until what is not well is ended
EXTENSION = 3600.0  # at most, when a program asks for more time
LOST = 30.0
MAX_DOUBLINGS = 20


class State(StrEnum):
    BLOCKED = "blocked"  # waits for other apps
    STARTING = "starting"  # until it runs and is ready
    RUNNING = "running"  # and ready
    DEGRADED = "degraded"  # alive, but its probe says that it is not well
    STOPPING = "stopping"
    EXITED = "exited"  # for good, as wanted
    FAILED = "failed"  # for good, not as wanted
    BACKOFF = "backoff"  # ended; is started again soon
    LOST = "lost"  # can be proved neither alive nor dead


FINAL = frozenset({State.EXITED, State.FAILED})
SETTLED = FINAL | {
    State.RUNNING,
    State.DEGRADED,
    State.BACKOFF,
    State.LOST,
}  # it is known how it went
UP = frozenset({State.RUNNING, State.DEGRADED})


class Exit(Struct, frozen=True):
    """How a generation ended; both None when nobody saw it."""

    code: int | None = None
    signal: int | None = None

    @property
    def clean(self) -> bool:
        return self.code == 0
