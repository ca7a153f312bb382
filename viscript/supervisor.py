"""Decides when a launch is started, stopped and started again. No process, no clock, no chance.

Feed events with `handle`, ask `next_timer` when to call `handle_timer`, carry out the actions. Rules:

* Every state but the two final ones has a timed way out.
* A new generation is spawned only after the one before has ended: never two at once, and what cannot be
  proved dead is lost, not replaced.
* What was told to stop stays stopped, whatever happens meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from viscript.records import Restart

BROKER = 0  # the launch id of the broker, which all others need and which stops last

# Seconds.
DEPENDENCIES = 60.0
SPAWN = 45.0  # the bus may be coming back just now
READY = 30.0
SETTLE = 0.25  # what falls over at once was never running
STOP = 30.0  # over the bus, then TERM, then KILL: the shell's steps end before
LOST = 30.0
STABLE = 60.0
FIRST_PAUSE, LAST_PAUSE = 0.5, 60.0


class State(StrEnum):
    BLOCKED = "blocked"  # waits for other apps
    STARTING = "starting"  # until it runs and, if it should be, is on the bus
    RUNNING = "running"
    STOPPING = "stopping"
    EXITED = "exited"  # for good, as wanted
    FAILED = "failed"  # for good, not as wanted
    BACKOFF = "backoff"  # ended; is started again soon
    LOST = "lost"  # can be proved neither alive nor dead


FINAL = frozenset({State.EXITED, State.FAILED})
SETTLED = FINAL | {State.RUNNING, State.BACKOFF, State.LOST}  # it is known how the start went


@dataclass(frozen=True)
class Exit:
    """How a generation ended; both None when nobody saw it."""

    code: int | None = None
    signal: int | None = None

    @property
    def clean(self) -> bool:
        return self.code == 0


@dataclass(frozen=True)
class Launch:
    """One launch as it is known now."""

    id: int
    app: str
    after: tuple[str, ...] = ()
    on_bus: bool = False  # ready when it is on the bus, else when it has settled
    restart: Restart = "never"
    state: State = State.BLOCKED
    generation: int = 0  # the last one spawned
    alive: bool = False  # that generation has not ended, as far as anybody knows
    spawned: bool = False  # that generation runs, or did
    restarts: int = 0
    failures: int = 0  # consecutive
    stop: bool = False  # somebody wants it stopped
    problem: str = ""  # why it is stopped by us, if nobody asked for it
    reason: str = ""  # of the present state, for people
    exit: Exit | None = None  # of the last generation that ended
    deadline: float | None = None


# Events.


@dataclass(frozen=True)
class Start:
    launch: Launch


@dataclass(frozen=True)
class Adopt:
    """A launch of an earlier daemon whose process is alive."""

    launch: Launch


@dataclass(frozen=True)
class Missed:
    """A launch of an earlier daemon of whose last generation nothing is left."""

    launch: Launch
    exit: Exit


@dataclass(frozen=True)
class Spawned:
    id: int
    generation: int


@dataclass(frozen=True)
class SpawnFailed:
    id: int
    generation: int
    reason: str
    permanent: bool  # the same attempt would fail again


@dataclass(frozen=True)
class Ready:
    id: int


@dataclass(frozen=True)
class Exited:
    """The program ended; what it started may still be there."""

    id: int
    generation: int
    exit: Exit


@dataclass(frozen=True)
class Ended:
    """Nothing of the generation is left."""

    id: int
    generation: int
    exit: Exit


@dataclass(frozen=True)
class Mute:
    """Neither alive nor dead can be proved."""

    id: int
    reason: str


@dataclass(frozen=True)
class Found:
    """What was lost is alive and under control again."""

    id: int


@dataclass(frozen=True)
class Stop:
    id: int


@dataclass(frozen=True)
class Down:
    """Everything stops, dependents first, the broker last."""


Event = (
    Start | Adopt | Missed | Spawned | SpawnFailed | Ready | Exited | Ended | Mute | Found | Stop
    | Down
)  # fmt: skip


# Actions.


@dataclass(frozen=True)
class Spawn:
    id: int
    generation: int


@dataclass(frozen=True)
class Terminate:
    """Ask it over the bus if it is there, then TERM, then KILL."""

    id: int


@dataclass(frozen=True)
class Changed:
    launch: Launch


Action = Spawn | Terminate | Changed


class Supervisor:
    """All launches that have not ended. `jitter()` returns a factor around 1 for pauses."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._launches: dict[int, Launch] = {}
        self._actions: list[Action] = []
        self._down = False

    @property
    def launches(self) -> dict[int, Launch]:
        return dict(self._launches)

    def next_timer(self) -> float | None:
        """When `handle_timer` has something to do, on the clock of `now`."""
        return min(
            (x.deadline for x in self._launches.values() if x.deadline is not None), default=None
        )

    def handle(self, event: Event, now: float) -> list[Action]:
        """Apply one event and return what must now be done. Events of other generations are stale."""
        match event:
            case Start(launch):
                self._set(
                    replace(launch, state=State.BLOCKED, deadline=now + DEPENDENCIES, reason="")
                )
            case Adopt(launch):
                self._adopt(launch, now)
            case Missed(launch, how):
                self._ended(replace(launch, exit=how, alive=False, spawned=True), now)
            case Down():
                self._down = True
            case _:
                launch_ = self._launches.get(event.id)
                if launch_ is not None:
                    self._handle_one(launch_, event, now)
        return self._settle(now)

    def handle_timer(self, now: float) -> list[Action]:
        for launch in list(self._launches.values()):
            if launch.deadline is not None and launch.deadline <= now:
                self._time_out(launch, now)
        return self._settle(now)

    # One launch, one event.

    def _handle_one(  # noqa: C901, PLR0912 - a case each
        self,
        launch: Launch,
        event: Spawned | SpawnFailed | Ready | Exited | Ended | Mute | Found | Stop,
        now: float,
    ) -> None:
        if isinstance(event, Spawned | SpawnFailed | Exited | Ended) and (
            event.generation != launch.generation or not launch.alive
        ):
            return
        match event:
            case Spawned():
                self._spawned(launch, now)
            case SpawnFailed(reason=reason, permanent=permanent):
                self._spawn_failed(launch, reason, permanent, now)
            case Ready():
                # One that shows up while it is being stopped must not come back to life.
                if launch.state is State.STARTING:
                    self._run(launch, now)
            case Exited(exit=how):
                if launch.alive and launch.state is not State.STOPPING:
                    reason = "has ended; what it left running is being ended too"
                    launch = replace(launch, reason=reason)
                    self._set(replace(launch, state=State.STOPPING, exit=how, deadline=now + STOP))
            case Ended(exit=how):
                self._ended(replace(launch, exit=how, alive=False), now)
            case Mute(reason=reason):
                if launch.alive and launch.state is not State.LOST:
                    self._set(replace(launch, state=State.LOST, reason=reason, deadline=now + LOST))
            case Found():
                self._found(launch, now)
            case Stop():
                self._stop(launch, now)
            case _:
                assert_never(event)

    def _adopt(self, launch: Launch, now: float) -> None:
        launch = replace(launch, alive=True, spawned=True)
        if launch.stop or launch.state is State.STOPPING:
            self._terminate(launch, now)
        elif launch.state is State.STARTING and launch.on_bus:
            self._set(replace(launch, deadline=now + READY))
        else:
            self._run(launch, now)

    def _spawned(self, launch: Launch, now: float) -> None:
        launch = replace(launch, spawned=True)
        if launch.state is State.STARTING:
            self._set(replace(launch, deadline=now + (READY if launch.on_bus else SETTLE)))
        elif launch.state is State.STOPPING:  # the stop came first
            self._terminate(launch, now)

    def _spawn_failed(self, launch: Launch, reason: str, permanent: bool, now: float) -> None:  # noqa: FBT001
        launch = replace(launch, alive=False)
        if launch.stop:
            self._end(launch, State.EXITED, "stopped before it ran")
        elif permanent or launch.restart == "never":
            self._end(launch, State.FAILED, reason)
        else:
            self._pause(replace(launch, reason=reason), now)

    def _run(self, launch: Launch, now: float) -> None:
        self._set(replace(launch, state=State.RUNNING, reason="", deadline=now + STABLE))

    def _found(self, launch: Launch, now: float) -> None:
        if launch.state is State.LOST:
            if launch.stop:
                self._terminate(launch, now)
            else:
                self._run(launch, now)

    def _stop(self, launch: Launch, now: float) -> None:
        launch = replace(launch, stop=True)
        match launch.state:
            case State.BLOCKED | State.BACKOFF:
                self._end(launch, State.EXITED, "stopped while it waited")
            case State.STOPPING:
                self._set(launch)
            case _:
                self._terminate(launch, now)

    def _terminate(self, launch: Launch, now: float) -> None:
        self._set(replace(launch, state=State.STOPPING, deadline=now + STOP))
        self._actions.append(Terminate(launch.id))

    def _ended(self, launch: Launch, now: float) -> None:
        how = launch.exit or Exit()
        if launch.stop:
            self._end(launch, State.EXITED, launch.reason if launch.problem else "")
        elif launch.restart == "always" or (launch.restart == "on-failure" and not how.clean):
            self._pause(launch, now)
        elif launch.problem:
            self._end(launch, State.FAILED, launch.problem)
        else:
            self._end(launch, State.EXITED if how.clean else State.FAILED, "")

    def _pause(self, launch: Launch, now: float) -> None:
        pause = min(LAST_PAUSE, FIRST_PAUSE * 2.0 ** min(launch.failures, 20)) * self._jitter()
        self._set(
            replace(
                launch,
                state=State.BACKOFF,
                failures=launch.failures + 1,
                deadline=now + pause,
                problem="",
                reason=launch.problem or launch.reason,
            )
        )

    def _end(self, launch: Launch, state: State, reason: str) -> None:
        self._set(replace(launch, state=state, reason=reason, deadline=None))

    def _time_out(self, launch: Launch, now: float) -> None:
        match launch.state:
            case State.BLOCKED:
                waited = f"waited {DEPENDENCIES:.0f} s for {', '.join(launch.after)}"
                self._end(launch, State.FAILED, waited)
            case State.STARTING if launch.spawned and not launch.on_bus:
                self._run(launch, now)
            case State.STARTING:
                problem = (
                    f"was not on the bus within {READY:.0f} s"
                    if launch.spawned
                    else f"could not be started within {SPAWN:.0f} s"
                )
                self._terminate(replace(launch, problem=problem, reason=problem), now)
            case State.RUNNING:
                self._set(replace(launch, failures=0, deadline=None))
            case State.STOPPING:
                reason = f"did not end within {STOP:.0f} s, not even by SIGKILL"
                self._set(replace(launch, state=State.LOST, reason=reason, deadline=now + LOST))
            case State.BACKOFF:
                again = replace(launch, state=State.BLOCKED, restarts=launch.restarts + 1)
                self._set(replace(again, deadline=now + DEPENDENCIES, reason=""))
            case State.LOST:
                self._end(launch, State.FAILED, f"lost: {launch.reason}")
            case State.EXITED | State.FAILED:
                pass
            case _:
                assert_never(launch.state)

    # What follows from all of them together.

    def _settle(self, now: float) -> list[Action]:
        """Start what no longer waits, stop what is no longer needed, hand over the actions."""
        while self._advance(now):
            pass
        actions, self._actions = self._actions, []
        return actions

    def _advance(self, now: float) -> bool:
        before = len(self._actions)
        if self._down:  # first: what is to stop must not be started for a moment
            needed = {name for x in self._launches.values() for name in x.after}
            for launch in list(self._launches.values()):
                last = launch.id != BROKER or len(self._launches) == 1
                if not launch.stop and launch.app not in needed and last:
                    self._stop(launch, now)
            if len(self._actions) > before:
                return True
        for launch in [x for x in self._launches.values() if x.state is State.BLOCKED]:
            self._unblock(launch, now)
        return len(self._actions) > before

    def _unblock(self, launch: Launch, now: float) -> None:
        waits = [name for name in launch.after if not self._has(name, State.RUNNING)]
        missing = [name for name in waits if not self._has(name, None)]
        if missing:
            self._end(
                launch, State.FAILED,
                f"needs {missing[0]}, which is not started; run: viscript start {missing[0]}",
            )  # fmt: skip
        elif not waits:
            generation = launch.generation + 1
            # The time runs from the spawn on; `Spawned` sets it anew.
            self._set(
                replace(
                    launch, state=State.STARTING, generation=generation, alive=True,
                    spawned=False, reason="", deadline=now + SPAWN,
                )
            )  # fmt: skip
            self._actions.append(Spawn(launch.id, generation))
        elif launch.reason != (reason := f"waits for {', '.join(waits)}"):
            self._set(replace(launch, reason=reason))

    def _has(self, app: str, state: State | None) -> bool:
        return any(
            x.app == app and (state is None or x.state is state) for x in self._launches.values()
        )

    def _set(self, launch: Launch) -> None:
        if launch.state in FINAL:
            self._launches.pop(launch.id, None)
        else:
            self._launches[launch.id] = launch
        self._actions.append(Changed(launch))
