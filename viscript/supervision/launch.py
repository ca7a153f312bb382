"""One launch as it is known now."""

from __future__ import annotations

from msgspec import Struct

from viscript.rules import NO_PROBE, NO_RESTART, STOP, After, Probe, RestartRule, StopStep
from viscript.supervision import states
from viscript.supervision.states import Exit, State

BROKER = 0  # the launch id of the broker, which all others need and which stops last


class Launch(Struct, frozen=True):
    """A launch is one thing to keep up; its generations are the runs of its program, one after the other."""

    id: int
    app: str
    after: tuple[After, ...] = ()
    ready: Probe = NO_PROBE
    alive: Probe | None = None  # asked as long as it runs
    restart: RestartRule = NO_RESTART
    stops: tuple[StopStep, ...] = STOP
    state: State = State.BLOCKED
    generation: int = 0  # the last one spawned
    living: bool = False  # that generation has not ended, as far as anybody knows
    spawned: bool = False  # that generation runs, or did
    was_ready: bool = False  # that generation has been
    restarts: int = 0
    failures: int = 0  # in a row
    streak: int = 0  # ends in a row, also good ones, since it was last stable
    stop: bool = False  # somebody wants it stopped
    again: bool = False  # somebody wants it stopped and then started
    extended: bool = False  # that generation has asked for more time to get ready
    problem: str = ""  # why it is stopped by us, if nobody asked for it
    reason: str = ""  # of the present state, for people
    exit: Exit | None = None  # of the last generation that ended
    deadline: float | None = None

    @property
    def on_bus(self) -> bool:
        return self.ready.kind == "bus"

    @property
    def ready_within(self) -> float:
        """Seconds that its program may take to be ready."""
        probe = self.ready
        return probe.delay + max(states.READY, probe.failures * max(probe.every, probe.timeout))

    @property
    def well_within(self) -> float:
        """Seconds that it may be not well until it is ended."""
        probe = self.alive or NO_PROBE
        return max(states.UNWELL, probe.failures * (probe.every + probe.timeout))

    @property
    def ends_within(self) -> float:
        """Seconds from the wish to the last KILL."""
        return states.STOP + sum(step.wait for step in self.stops)
