"""Decides when a launch is started, stopped and started again. No process, no clock, no chance.

Feed events with `handle`, ask `next_timer` when to call `handle_timer`, carry out the actions. Rules:

* Every state but RUNNING and the two final ones has a timed way out.
* A new generation is spawned only after the one before has ended: never two at once. What cannot be
  proved dead is never replaced: it is lost, then failed, and stays here until it is found or has ended.
* What was told to stop stays stopped, whatever happens meanwhile; the newest wish counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import assert_never

from msgspec.structs import replace

from viscript.supervision import order, policy, states
from viscript.supervision.events import (
    Action,
    Adopt,
    Again,
    Changed,
    Completed,
    Down,
    Ended,
    Event,
    Exited,
    Extended,
    Found,
    Missed,
    Mute,
    OfOne,
    Ready,
    Spawn,
    Spawned,
    SpawnFailed,
    Start,
    Stop,
    Terminate,
    Unwell,
    Update,
    Well,
    is_stale,
)
from viscript.supervision.launch import BROKER, Launch
from viscript.supervision.states import FINAL, Exit, State

WAITS = frozenset({State.BLOCKED, State.BACKOFF})  # nothing of it runs


class Supervisor:
    """All launches that are not over. `jitter()` returns a factor around 1 for pauses."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._launches: dict[int, Launch] = {}
        self.outcomes: dict[str, bool] = {}  # of apps that have ended: whether well
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

    def dependants(self, number: int, going: Iterable[int] = ()) -> list[Launch]:
        """What is stopped before this launch, in that order, if those in `going` stop as well."""
        launch = self._launches.get(number)
        if launch is None:
            return []
        return order.dependants(launch, self._launches.values(), going)

    def handle(self, event: Event, now: float) -> list[Action]:
        """Apply one event and return what must now be done. Events of other generations are stale."""
        match event:
            case Start(launch):
                self.outcomes.pop(launch.app, None)
                self._block(replace(launch, stop=False, again=False), now)
            case Adopt(launch):
                self._adopt(launch, now)
            case Missed(launch, how):
                self._ended(replace(launch, exit=how, living=False, spawned=True), now)
            case Completed(app):
                self.outcomes[app] = True
            case Update(launch):
                self._update(launch)
            case Down():
                self._down = True
            case _:
                known = self._launches.get(event.id)
                if known is not None and not is_stale(event, known):
                    self._handle_one(known, event, now)
        return self._settle(now)

    def handle_timer(self, now: float) -> list[Action]:
        for launch in list(self._launches.values()):
            if launch.deadline is not None and launch.deadline <= now:
                self._time_out(launch, now)
        return self._settle(now)

    # One launch, one event.

    def _handle_one(self, launch: Launch, event: OfOne, now: float) -> None:  # noqa: C901, PLR0912 - a case each
        match event:
            case Spawned():
                self._spawned(launch, now)
            case SpawnFailed(reason=reason, permanent=permanent):
                self._spawn_failed(launch, reason, permanent, now)
            case Ready():
                # One that shows up while it is being stopped must not come back to life.
                if launch.state is State.STARTING:
                    self._run(launch, now)
            case Well():
                if launch.state is State.DEGRADED:
                    self._run(launch, now)
            case Unwell(reason=reason):
                if launch.state is State.RUNNING:
                    deadline = now + launch.well_within
                    self._set(
                        replace(launch, state=State.DEGRADED, reason=reason, deadline=deadline)
                    )
            case Extended(until=until):
                self._extend(launch, until, now)
            case Exited(exit=how):
                self._exited(launch, how, now)
            case Ended(exit=how):
                self._ended(replace(launch, exit=how, living=False), now)
            case Mute(reason=reason):
                if launch.living and launch.state not in FINAL:
                    self._lose(launch, reason, now)
            case Found():
                self._found(launch, now)
            case Stop(force=force):
                self._stop(launch, now, force=force)
            case Again():
                self._again(launch, now)
            case _:
                assert_never(event)

    def _adopt(self, launch: Launch, now: float) -> None:
        launch = replace(launch, living=True, spawned=True)
        if launch.state is State.STOPPING or launch.stop or launch.again:
            self._terminate(launch, now)
        elif launch.state is State.STARTING and launch.ready.kind != "none":
            self._set(replace(launch, deadline=now + launch.ready_within))
        else:
            self._run(launch, now)

    def _update(self, launch: Launch) -> None:
        known = self._launches.get(launch.id)
        if known is not None:
            rules = {x: getattr(launch, x) for x in ("after", "ready", "alive", "restart", "stops")}
            self._set(replace(known, **rules))

    def _spawned(self, launch: Launch, now: float) -> None:
        launch = replace(launch, spawned=True)
        if launch.state is State.STARTING:
            waits = states.SETTLE if launch.ready.kind == "none" else launch.ready_within
            self._set(replace(launch, deadline=now + waits))
        elif launch.state is State.STOPPING:  # the stop came first
            self._terminate(launch, now)

    def _spawn_failed(self, launch: Launch, reason: str, permanent: bool, now: float) -> None:  # noqa: FBT001
        launch = replace(launch, living=False)
        if launch.stop:
            self._end(launch, State.EXITED, "stopped before it ran")
        elif launch.again:
            self._block(launch, now)
        else:
            self._follow(launch, policy.judge_spawn(launch, reason, permanent=permanent), now)

    def _run(self, launch: Launch, now: float) -> None:
        deadline = now + launch.restart.stable
        self._set(
            replace(
                launch, state=State.RUNNING, reason="", spawned=True, was_ready=True, deadline=deadline
            )
        )  # fmt: skip

    def _exited(self, launch: Launch, how: Exit, now: float) -> None:
        if launch.state is State.STOPPING:
            return
        reason = "has ended; what it left running is being ended too"
        deadline = now + launch.ends_within
        self._set(replace(launch, state=State.STOPPING, reason=reason, exit=how, deadline=deadline))

    def _extend(self, launch: Launch, until: float, now: float) -> None:
        """What it asks for itself never shortens a time limit."""
        if launch.state is State.STOPPING:
            until += launch.ends_within
        elif launch.state is not State.STARTING or launch.ready.kind == "none":
            return
        longest = now + states.EXTENSION + launch.ends_within
        deadline = min(longest, max(until, launch.deadline or now))
        self._set(replace(launch, deadline=deadline, extended=True))

    def _found(self, launch: Launch, now: float) -> None:
        if launch.state is State.LOST or (launch.state is State.FAILED and launch.living):
            if launch.stop or launch.again or launch.problem:
                self._terminate(launch, now)
            else:
                self._run(launch, now)

    def _lose(self, launch: Launch, reason: str, now: float) -> None:
        self._set(replace(launch, state=State.LOST, reason=reason, deadline=now + states.LOST))

    # What people want.

    def _stop(self, launch: Launch, now: float, *, force: bool) -> None:
        first = order.dependants(launch, self._launches.values())
        for other in first:
            self._want_stop(other, f"stops, as {launch.app} is to stop", now)
        waits = ", ".join(dict.fromkeys(other.app for other in first if other.living))
        self._want_stop(launch, f"stops after {waits}" if waits else launch.reason, now)
        known = self._launches.get(launch.id)
        if force and known is not None and known.living:
            self._terminate(known, now, force=True)

    def _want_stop(self, launch: Launch, reason: str, now: float) -> None:
        """What runs well is ended when its turn has come, the others at once."""
        launch = replace(launch, stop=True, again=False)
        match launch.state:
            case State.BLOCKED | State.BACKOFF:
                self._end(launch, State.EXITED, "stopped while it waited")
            case State.LOST | State.FAILED:
                self._terminate(launch, now)
            case State.STOPPING:
                self._set(launch)
            case _:
                self._set(replace(launch, reason=reason))

    def _again(self, launch: Launch, now: float) -> None:
        launch = replace(launch, stop=False, failures=0, streak=0)
        if launch.state in WAITS:
            self._block(replace(launch, again=False), now)
        elif launch.state is State.STOPPING:
            self._set(replace(launch, again=True))
        else:
            self._terminate(replace(launch, again=True), now)

    def _terminate(self, launch: Launch, now: float, *, force: bool = False) -> None:
        self._set(replace(launch, state=State.STOPPING, deadline=now + launch.ends_within))
        self._actions.append(Terminate(launch.id, force))

    # Its end, and what follows.

    def _ended(self, launch: Launch, now: float) -> None:
        if launch.stop:
            self._end(launch, State.EXITED, launch.reason if launch.problem else "")
        elif launch.again:
            self._block(replace(launch, restarts=launch.restarts + 1), now)
        else:
            self._follow(launch, policy.judge(launch, launch.exit or Exit()), now)

    def _follow(self, launch: Launch, verdict: policy.Verdict, now: float) -> None:
        launch = replace(launch, failures=verdict.failures)
        if verdict.state is not State.BACKOFF:
            self._end(launch, verdict.state, verdict.reason)
            return
        pause = policy.pause(launch.restart, launch.streak) * self._jitter()
        self._set(
            replace(
                launch, state=State.BACKOFF, streak=launch.streak + 1, deadline=now + pause,
                problem="", reason=verdict.reason,
            )
        )  # fmt: skip

    def _end(self, launch: Launch, state: State, reason: str) -> None:
        if not launch.stop:
            self.outcomes[launch.app] = state is State.EXITED
        self._set(replace(launch, state=state, reason=reason, deadline=None))

    def _block(self, launch: Launch, now: float) -> None:
        deadline = now + states.DEPENDENCIES
        self._set(
            replace(
                launch, state=State.BLOCKED, again=False, problem="", reason="", deadline=deadline
            )
        )

    def _time_out(self, launch: Launch, now: float) -> None:
        match launch.state:
            case State.BLOCKED:
                self._waited(launch, now)
            case State.STARTING if launch.spawned and launch.ready.kind == "none":
                self._run(launch, now)
            case State.STARTING:
                self._give_in(launch, _too_late(launch), now)
            case State.RUNNING:
                self._set(replace(launch, failures=0, streak=0, deadline=None))
            case State.DEGRADED:
                self._give_in(launch, f"was not well: {launch.reason}", now)
            case State.STOPPING:
                self._lose(
                    launch,
                    f"did not end within {launch.ends_within:.0f} s, not even by SIGKILL",
                    now,
                )
            case State.BACKOFF:
                self._block(replace(launch, restarts=launch.restarts + 1), now)
            case State.LOST:
                # Still here, and so is what lives of it: nothing takes its place until it has ended.
                reason = f"lost: {launch.reason}"
                self._set(replace(launch, state=State.FAILED, reason=reason, deadline=None))
            case State.EXITED | State.FAILED:
                pass
            case _:
                assert_never(launch.state)

    def _give_in(self, launch: Launch, problem: str, now: float) -> None:
        """End it ourselves; its restart rule decides on what follows."""
        self._terminate(replace(launch, problem=problem, reason=problem), now)

    def _waited(self, launch: Launch, now: float) -> None:
        waits = order.waiting(launch, self._launches.values(), self.outcomes).apps
        if order.may_wait_on(launch, [x for x in self._launches.values() if x.app in waits]):
            self._set(replace(launch, deadline=now + states.DEPENDENCIES))
        else:
            waited = f"waited {states.DEPENDENCIES:.0f} s for {', '.join(waits)}"
            self._end(launch, State.FAILED, waited)

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
            self._go_down(now)
        stopping = [x for x in self._launches.values() if x.stop and x.living]
        for launch in order.may_stop(stopping):
            if launch.state is not State.STOPPING:
                self._terminate(launch, now)
        if len(self._actions) > before:
            return True
        for launch in [x for x in self._launches.values() if x.state is State.BLOCKED]:
            self._unblock(launch, now)
        return len(self._actions) > before

    def _go_down(self, now: float) -> None:
        """All are to stop, the broker when it is alone; what is lost is not waited for any longer."""
        for number in [x.id for x in self._launches.values() if x.state is State.FAILED and x.stop]:
            del self._launches[number]
        for launch in list(self._launches.values()):
            if not launch.stop and (launch.id != BROKER or len(self._launches) == 1):
                self._want_stop(launch, "", now)

    def _unblock(self, launch: Launch, now: float) -> None:
        waits = order.waiting(launch, self._launches.values(), self.outcomes)
        if waits.missing:
            self._end(launch, State.FAILED, waits.missing)
        elif not waits.apps:
            generation = launch.generation + 1
            # The time runs from the spawn on; `Spawned` sets it anew.
            self._set(
                replace(
                    launch, state=State.STARTING, generation=generation, living=True, spawned=False,
                    was_ready=False, extended=False, reason="", problem="",
                    deadline=now + states.SPAWN,
                )
            )  # fmt: skip
            self._actions.append(Spawn(launch.id, generation))
        elif launch.reason != (reason := f"waits for {', '.join(waits.apps)}"):
            self._set(replace(launch, reason=reason))

    def _set(self, launch: Launch) -> None:
        known = self._launches.get(launch.id)
        self._launches[launch.id] = launch
        if launch.state in FINAL and not launch.living:
            del self._launches[launch.id]
        if launch != known:
            self._actions.append(Changed(launch, known.state if known is not None else None))


def _too_late(launch: Launch) -> str:
    if not launch.spawned:
        return f"could not be started within {states.SPAWN:.0f} s"
    if launch.extended:
        return "was not ready within the time that it had asked for"
    what = "on the bus" if launch.on_bus else "ready"
    return f"was not {what} within {launch.ready_within:.0f} s"
