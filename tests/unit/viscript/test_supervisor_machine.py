"""The supervisor against everything that may happen, in any order, with a clock that the test turns."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from tests.support.supervising import BUS, Talk
from viscript.rules import NO_PROBE, After, Probe, RestartRule
from viscript.supervision.events import (
    Action,
    Adopt,
    Again,
    Down,
    Ended,
    Exited,
    Extended,
    Found,
    Missed,
    Mute,
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
)
from viscript.supervision.launch import BROKER, Launch
from viscript.supervision.states import FINAL, Exit, State
from viscript.supervision.supervisor import Supervisor

UNTIL = [None, "started", "ready", "completed"]
POLICIES = ["never", "on-failure", "always"]
TIMELESS = {State.RUNNING, State.FAILED}


class Machine(RuleBasedStateMachine):
    """True events and stale ones; the world obeys Spawn and Terminate or not, and daemons die."""

    numbers = st.integers(0, 4)
    known = precondition(lambda self: self.talk.supervisor.launches)

    def __init__(self) -> None:
        super().__init__()
        self.talk = Talk()
        self.living: dict[int, set[int]] = {}  # generations that were spawned and have not ended
        self.started: set[int] = set()
        self.stopped: set[int] = set()  # whose last wish is that they do not run
        self.given_up: set[int] = set()  # by `Down`, although something of them lives

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Spawn):
                assert not self.living.setdefault(action.id, set()), "two generations at once"
                assert action.id not in self.stopped, "started although it was told to stop"
                self.living[action.id].add(action.generation)
            elif isinstance(action, Terminate):
                assert self.living.get(action.id), "ends what does not live"

    # What people want.

    @initialize(policies=st.lists(st.sampled_from(POLICIES), min_size=5, max_size=5),
                untils=st.lists(st.sampled_from(UNTIL), min_size=5, max_size=5))  # fmt: skip
    def start_all(self, policies, untils):
        for number, (policy, until) in enumerate(zip(policies, untils, strict=True)):
            self.start(number, NO_PROBE, BUS, policy, 0, until)

    @rule(number=numbers, ready=st.sampled_from([BUS, NO_PROBE, Probe("tcp", "localhost:1")]),
          alive=st.sampled_from([None, BUS]), policy=st.sampled_from(POLICIES),
          give_up=st.integers(0, 2), until=st.sampled_from(UNTIL))  # fmt: skip
    def start(self, number, ready, alive, policy, give_up, until):
        """a1 and a2 need the broker or nothing, a3 needs a1, a4 needs a3."""
        if number in self.started:
            return
        self.started.add(number)
        needs = {1: "a0", 2: "a0", 3: "a1", 4: "a3"}.get(number)
        after = (After(needs, until),) if needs and until else ()
        rule = RestartRule(policy, give_up=give_up)
        self.do(self.talk.say(Start(Launch(number, f"a{number}", after, ready, alive, rule))))
        self.over()

    @rule(number=numbers, force=st.booleans())
    def stop(self, number, force):
        if number in self.talk.supervisor.launches:
            mine = {number, *(x.id for x in self.talk.supervisor.dependants(number))}
            lost = self.talk.supervisor.launches[number].state in {State.LOST, State.FAILED}
            actions = self.talk.say(Stop(number, force))
            assert not lost or any(isinstance(x, Terminate) and x.id == number for x in actions)
            self.do(actions)
            self.stopped |= mine
            self.over()

    @rule(number=numbers)
    def again(self, number):
        if number in self.talk.supervisor.launches:
            self.stopped.discard(number)
            self.do(self.talk.say(Again(number)))
            self.over()

    @rule(number=numbers, policy=st.sampled_from(["never", "always"]))
    def update(self, number, policy):
        launch = self.talk.supervisor.launches.get(number)
        if launch is not None:
            self.do(self.talk.say(Update(replace(launch, restart=RestartRule(policy)))))
            self.over()

    # What the world does.

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
                self.over()

    @rule(number=numbers, code=st.sampled_from([0, 1, 78, None]), first=st.booleans())
    def ended(self, number, code, first):
        for generation in list(self.living.get(number, ())):
            if first:
                self.do(self.talk.say(Exited(number, generation, Exit(code))))
            self.living[number].discard(generation)
            self.do(self.talk.say(Ended(number, generation, Exit(code))))
            self.over()

    @rule(number=numbers, generation=st.integers(0, 3), event=st.sampled_from([Ended, Exited]))
    def stale(self, number, generation, event):
        if generation not in self.living.get(number, ()):
            self.do(self.talk.say(event(number, generation, Exit(1))))

    @rule(number=numbers, event=st.sampled_from([Ready, Found]))
    def seen(self, number, event):
        self.do(self.talk.say(event(number)))

    @rule(number=numbers, well=st.booleans(), generation=st.integers(0, 3))
    def probed(self, number, well, generation):
        event = Well(number, generation) if well else Unwell(number, generation, "no answer")
        self.do(self.talk.say(event))

    @rule(number=numbers, generation=st.integers(0, 3), seconds=st.sampled_from([0.0, 100.0, 1e9]))
    def asks_for_time(self, number, generation, seconds):
        until = self.talk.now + seconds
        self.do(self.talk.say(Extended(number, generation, until)))

    @rule(number=numbers)
    def mute(self, number):
        self.do(self.talk.say(Mute(number, "silence")))

    @rule(seconds=st.sampled_from([0.3, 1.0, 20.0, 70.0]))
    def wait(self, seconds):
        self.do(self.talk.pass_time(seconds))
        self.over()

    @known
    @rule()
    def another_daemon_takes_over(self):
        """All that it knows is what was told; what has ended meanwhile it hears of afterwards."""
        before = self.talk.supervisor.launches
        self.talk.supervisor = Supervisor(lambda: 1.0)
        for known in before.values():
            launch = replace(known, deadline=None, living=False, spawned=False)
            if self.living.get(launch.id):
                self.do(self.talk.say(Adopt(launch)))
            elif launch.state in {State.BLOCKED, State.BACKOFF}:
                self.do(self.talk.say(Start(launch)))
            else:
                self.do(self.talk.say(Missed(launch, Exit(1))))
        self.over()

    @known
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
        self.given_up = set(self.started)
        self.stopped -= {n for n in self.stopped if not self.living.get(n)}

    @known
    @rule(number=numbers)
    def stop_converges(self, number):
        """A program that ends when it is told to is at its end soon, whatever the state was."""
        if number not in self.talk.supervisor.launches:
            return
        self.stop(number, force=False)
        for _ in range(40):
            for launch in list(self.talk.supervisor.launches.values()):
                if launch.state is State.STOPPING:
                    self.ended(launch.id, 0, first=False)
            self.do(self.talk.pass_time(10.0))
            self.over()
        left = self.talk.supervisor.launches.get(number)
        assert left is None or (left.state is State.FAILED and left.living)

    # What holds at any time.

    def told_to_stop(self) -> set[int]:
        """By `Down`: all at once, but the broker only when it is alone."""
        launches = set(self.talk.supervisor.launches)
        return launches if launches == {BROKER} else launches - {BROKER}

    def over(self) -> None:
        """What is no longer there may be started anew, if nothing of it lives."""
        gone = self.started - set(self.talk.supervisor.launches)
        gone = {n for n in gone if not self.living.get(n)}
        self.started -= gone
        self.stopped -= gone
        self.given_up -= gone

    @invariant()
    def nothing_waits_for_ever(self):
        launches = self.talk.supervisor.launches.values()
        for launch in launches:
            assert launch.deadline is not None or launch.state in TIMELESS
            if launch.stop and launch.state is State.RUNNING:  # then it waits for one that ends
                assert any(x.state is State.STOPPING for x in launches)

    @invariant()
    def what_may_live_is_known(self):
        """No living generation is forgotten but by `Down`, which gives up at the end."""
        launches = self.talk.supervisor.launches
        for number, living in self.living.items():
            if living and number not in self.given_up:
                assert launches[number].living
                assert launches[number].generation in living


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase
