"""The supervisor's rules, as dialogues and as a machine that tries everything."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from viscript import supervisor
from viscript.supervisor import (
    BROKER,
    FINAL,
    Adopt,
    Changed,
    Down,
    Ended,
    Exit,
    Exited,
    Found,
    Launch,
    Missed,
    Mute,
    Ready,
    Spawn,
    Spawned,
    SpawnFailed,
    Start,
    State,
    Stop,
    Supervisor,
    Terminate,
)


class Talk:
    """A supervisor, a clock and the last state told of each launch."""

    def __init__(self) -> None:
        self.supervisor = Supervisor(lambda: 1.0)
        self.now = 0.0
        self.told: dict[int, Launch] = {}

    def say(self, event: supervisor.Event) -> list[supervisor.Action]:
        return self._keep(self.supervisor.handle(event, self.now))

    def pass_time(self, seconds: float) -> list[supervisor.Action]:
        actions: list[supervisor.Action] = []
        end = self.now + seconds
        while (due := self.supervisor.next_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            actions += self._keep(self.supervisor.handle_timer(self.now))
        self.now = end
        return actions

    def _keep(self, actions: list[supervisor.Action]) -> list[supervisor.Action]:
        self.told |= {a.launch.id: a.launch for a in actions if isinstance(a, Changed)}
        return [action for action in actions if not isinstance(action, Changed)]

    def state(self, number: int = 1) -> State:
        return self.told[number].state

    def running(self, launch: Launch) -> None:
        """Bring a launch to RUNNING."""
        self.say(Start(launch))
        self.say(Spawned(launch.id, 1))
        self.say(Ready(launch.id))
        assert self.state(launch.id) is State.RUNNING


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_a_program_runs_when_it_is_on_the_bus(talk):
    assert talk.say(Start(Launch(1, "a", on_bus=True))) == [Spawn(1, 1)]
    talk.say(Spawned(1, 1))
    assert talk.state() is State.STARTING
    talk.say(Ready(1))
    assert talk.state() is State.RUNNING


def test_a_program_without_a_bus_runs_when_it_has_settled(talk):
    talk.say(Start(Launch(1, "a")))
    talk.say(Spawned(1, 1))
    assert talk.state() is State.STARTING
    talk.pass_time(supervisor.SETTLE)
    assert talk.state() is State.RUNNING


def test_a_program_that_never_comes_to_the_bus_is_stopped_and_has_failed(talk):
    talk.say(Start(Launch(1, "a", on_bus=True)))
    talk.say(Spawned(1, 1))
    assert talk.pass_time(supervisor.READY) == [Terminate(1)]
    talk.say(Ready(1))
    assert talk.state() is State.STOPPING
    talk.say(Ended(1, 1, Exit(0)))
    assert talk.state() is State.FAILED
    assert "not on the bus within 30 s" in talk.told[1].reason


def test_exit_codes_decide_between_exited_and_failed(talk):
    talk.running(Launch(1, "a"))
    talk.say(Ended(1, 1, Exit(0)))
    assert talk.state() is State.EXITED
    talk.running(Launch(2, "a"))
    talk.say(Ended(2, 1, Exit(3)))
    assert talk.state(2) is State.FAILED
    assert talk.told[2].exit == Exit(3)
    assert talk.supervisor.launches == {}


def test_what_an_ended_program_left_is_waited_for(talk):
    talk.running(Launch(1, "a", restart="always"))
    talk.say(Exited(1, 1, Exit(3)))
    assert talk.state() is State.STOPPING
    assert talk.told[1].exit == Exit(3)
    assert talk.pass_time(10) == []
    talk.say(Ended(1, 1, Exit(3)))
    assert talk.state() is State.BACKOFF


def test_pauses_double_up_to_a_minute_and_the_id_stays(talk):
    talk.say(Start(Launch(1, "a", restart="on-failure")))
    pauses = []
    for generation in range(1, 11):
        talk.say(Spawned(1, generation))
        talk.say(Ended(1, generation, Exit(1)))
        due = talk.supervisor.next_timer()
        assert due is not None
        pauses.append(due - talk.now)
        assert talk.pass_time(pauses[-1]) == [Spawn(1, generation + 1)]
    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert talk.told[1].restarts == 10


def test_a_stable_run_forgives_earlier_failures(talk):
    talk.running(Launch(1, "a", restart="always", failures=7))
    talk.pass_time(supervisor.STABLE)
    talk.say(Ended(1, 1, Exit(1)))
    assert talk.pass_time(supervisor.FIRST_PAUSE) == [Spawn(1, 2)]


def test_policies(talk):
    for number, (policy, code, state) in enumerate(
        [
            ("never", 1, State.FAILED), ("on-failure", 0, State.EXITED),
            ("on-failure", 1, State.BACKOFF), ("always", 0, State.BACKOFF),
        ], 1,
    ):  # fmt: skip
        talk.running(Launch(number, f"a{number}", restart=policy))
        talk.say(Ended(number, 1, Exit(code)))
        assert talk.state(number) is state


def test_what_is_told_to_stop_stays_stopped(talk):
    talk.running(Launch(1, "a", restart="always"))
    assert talk.say(Stop(1)) == [Terminate(1)]
    assert talk.say(Stop(1)) == []
    talk.say(Ready(1))
    assert talk.state() is State.STOPPING
    talk.say(Ended(1, 1, Exit(None, 15)))
    assert talk.state() is State.EXITED
    assert talk.pass_time(1000) == []


def test_a_stop_during_the_spawn_is_carried_out_after_it(talk):
    talk.say(Start(Launch(1, "a")))
    assert talk.say(Stop(1)) == [Terminate(1)]
    assert talk.say(Spawned(1, 1)) == [Terminate(1)]
    talk.say(Ended(1, 1, Exit(None, 15)))
    assert talk.state() is State.EXITED


def test_what_cannot_be_executed_has_failed_at_once(talk):
    talk.say(Start(Launch(1, "a", restart="always")))
    talk.say(SpawnFailed(1, 1, "no such file", permanent=True))
    assert talk.state() is State.FAILED
    assert talk.told[1].reason == "no such file"
    talk.say(Start(Launch(2, "a", restart="always")))
    talk.say(SpawnFailed(2, 1, "the bus is away", permanent=False))
    assert talk.state(2) is State.BACKOFF


def test_a_launch_waits_for_what_it_needs(talk):
    talk.say(Start(Launch(1, "base", on_bus=True)))
    assert talk.say(Start(Launch(2, "top", after=("base",)))) == []
    assert talk.told[2].reason == "waits for base"
    talk.say(Spawned(1, 1))
    assert talk.say(Ready(1)) == [Spawn(2, 1)]


def test_a_launch_fails_when_what_it_needs_is_not_there(talk):
    talk.say(Start(Launch(1, "top", after=("base",))))
    assert talk.state() is State.FAILED
    assert "viscript start base" in talk.told[1].reason
    talk.say(Start(Launch(2, "base")))
    talk.say(Start(Launch(3, "top", after=("base",))))
    talk.say(SpawnFailed(2, 1, "gone", permanent=True))
    assert talk.state(3) is State.FAILED


def test_waiting_ends(talk):
    talk.say(Start(Launch(1, "base", restart="always")))
    talk.say(Start(Launch(2, "top", after=("base",))))
    for generation in range(1, 40):
        talk.say(SpawnFailed(1, generation, "no", permanent=False))
        talk.pass_time(supervisor.LAST_PAUSE)
    assert talk.state(2) is State.FAILED
    assert "waited 60 s for base" in talk.told[2].reason


def test_what_does_not_end_is_lost_and_never_replaced(talk):
    talk.running(Launch(1, "a", restart="always"))
    talk.say(Stop(1))
    talk.pass_time(supervisor.STOP)
    assert talk.state() is State.LOST
    assert talk.pass_time(1000) == []
    assert talk.state() is State.FAILED


def test_what_is_mute_may_be_found_again(talk):
    talk.running(Launch(1, "a", restart="always"))
    talk.say(Mute(1, "silence"))
    assert talk.state() is State.LOST
    talk.say(Found(1))
    assert talk.state() is State.RUNNING
    talk.say(Mute(1, "silence"))
    assert talk.say(Stop(1)) == [Terminate(1)]


def test_adopted_launches_go_on_where_they_were(talk):
    assert talk.say(Adopt(Launch(1, "a", state=State.RUNNING, generation=3))) == []
    assert talk.state() is State.RUNNING
    assert talk.say(Adopt(Launch(2, "b", state=State.STOPPING, generation=1))) == [Terminate(2)]
    talk.say(Adopt(Launch(3, "c", state=State.STARTING, generation=1, on_bus=True)))
    talk.say(Ready(3))
    assert talk.state(3) is State.RUNNING
    talk.say(Ended(1, 2, Exit(1)))  # of a generation long gone
    assert talk.state() is State.RUNNING


def test_what_ended_meanwhile_is_never_told_to_run(talk):
    def told(launch: Launch) -> list[State]:
        actions = talk.supervisor.handle(Missed(launch, Exit()), talk.now)
        return [x.launch.state for x in actions if isinstance(x, Changed)]

    launch = Launch(1, "a", state=State.RUNNING, generation=3)
    assert told(launch) == [State.FAILED]
    assert told(replace(launch, stop=True)) == [State.EXITED]
    assert told(replace(launch, restart="always")) == [State.BACKOFF]
    assert talk.pass_time(supervisor.FIRST_PAUSE) == [Spawn(1, 4)]


def test_down_stops_dependents_first_and_the_broker_last(talk):
    talk.running(Launch(BROKER, "broker", restart="always"))
    talk.running(Launch(1, "base"))
    talk.running(Launch(2, "top", after=("base",)))
    assert talk.say(Down()) == [Terminate(2)]
    assert talk.say(Ended(2, 1, Exit(0))) == [Terminate(1)]
    assert talk.say(Ended(1, 1, Exit(0))) == [Terminate(BROKER)]
    talk.say(Ended(BROKER, 1, Exit(0)))
    assert talk.supervisor.launches == {}


def test_a_broker_that_waits_is_not_started_when_the_last_app_ends_on_the_way_down(talk):
    talk.running(Launch(BROKER, "broker", restart="always"))
    talk.running(Launch(1, "a"))
    assert talk.say(Down()) == [Terminate(1)]
    talk.pass_time(supervisor.STOP)
    assert talk.state() is State.LOST
    talk.say(Ended(BROKER, 1, Exit(1)))
    assert talk.state(BROKER) is State.BACKOFF
    talk.now += supervisor.LOST  # both are due now
    assert talk.pass_time(0) == []
    assert talk.state() is State.FAILED
    assert talk.state(BROKER) is State.EXITED


class Machine(RuleBasedStateMachine):
    """Any events in any order, true ones and stale ones; the world obeys Spawn and Terminate or not."""

    numbers = st.integers(0, 3)

    def __init__(self) -> None:
        super().__init__()
        self.talk = Talk()
        self.living: dict[int, set[int]] = {}  # generations that were spawned and have not ended
        self.started: set[int] = set()
        self.stopped: set[int] = set()

    def do(self, actions: list[supervisor.Action]) -> None:
        for action in actions:
            if isinstance(action, Spawn):
                assert not self.living.setdefault(action.id, set()), "two generations at once"
                assert action.id not in self.stopped, "started although it was told to stop"
                self.living[action.id].add(action.generation)

    @rule(number=numbers, on_bus=st.booleans(), policy=st.sampled_from(["never", "on-failure", "always"]),
          needs=st.booleans())  # fmt: skip
    def start(self, number, on_bus, policy, needs):
        if number in self.started:
            return
        self.started.add(number)
        after = ("a0",) if needs and number else ()
        self.do(self.talk.say(Start(Launch(number, f"a{number}", after, on_bus, policy))))

    @rule(number=numbers)
    def spawned(self, number):
        for generation in list(self.living.get(number, ())):
            self.do(self.talk.say(Spawned(number, generation)))

    @rule(number=numbers, permanent=st.booleans())
    def spawn_failed(self, number, permanent):
        launch = self.talk.supervisor.launches.get(number)
        for generation in list(self.living.get(number, ())):
            if launch is not None and not launch.spawned:
                self.living[number].discard(generation)
                self.do(self.talk.say(SpawnFailed(number, generation, "no", permanent)))

    @rule(number=numbers, code=st.integers(0, 1), first=st.booleans())
    def ended(self, number, code, first):
        for generation in list(self.living.get(number, ())):
            if first:
                self.do(self.talk.say(Exited(number, generation, Exit(code))))
            self.living[number].discard(generation)
            self.do(self.talk.say(Ended(number, generation, Exit(code))))

    @rule(number=numbers, generation=st.integers(0, 3))
    def stale(self, number, generation):
        if generation not in self.living.get(number, ()):
            self.do(self.talk.say(Ended(number, generation, Exit(1))))

    @rule(number=numbers, event=st.sampled_from([Ready, Found]))
    def seen(self, number, event):
        self.do(self.talk.say(event(number)))

    @rule(number=numbers)
    def mute(self, number):
        self.do(self.talk.say(Mute(number, "silence")))

    @rule(number=numbers)
    def stop(self, number):
        if number in self.talk.supervisor.launches:
            self.stopped.add(number)
        self.do(self.talk.say(Stop(number)))

    @rule(seconds=st.sampled_from([0.3, 1.0, 20.0, 70.0]))
    def wait(self, seconds):
        self.do(self.talk.pass_time(seconds))

    @precondition(lambda self: self.talk.supervisor.launches)
    @rule()
    def down_converges(self):
        """Whatever the state, with processes that obey or not, everything comes to an end."""
        self.do(self.talk.say(Down()))
        self.stopped |= self.told_to_stop()
        for _ in range(200):
            self.do(self.talk.pass_time(10.0))
            self.stopped |= self.told_to_stop()
        assert not self.talk.supervisor.launches
        assert all(launch.state in FINAL for launch in self.talk.told.values())
        self.talk.supervisor = Supervisor(lambda: 1.0)
        self.started -= {n for n in self.started if not self.living.get(n)}
        self.stopped -= {n for n in self.stopped if not self.living.get(n)}

    def told_to_stop(self) -> set[int]:
        """By `Down`: all at once, but the broker only when it is alone."""
        launches = set(self.talk.supervisor.launches)
        return launches if launches == {BROKER} else launches - {BROKER}

    @invariant()
    def nothing_waits_for_ever(self):
        for launch in self.talk.supervisor.launches.values():
            assert launch.deadline is not None or launch.state is State.RUNNING


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase
