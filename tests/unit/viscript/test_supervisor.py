"""The supervisor's states, as dialogues."""

from msgspec.structs import replace

from tests.support.supervising import ALWAYS, BUS, ON_FAILURE
from viscript.rules import After, RestartRule
from viscript.supervision import states
from viscript.supervision.events import (
    Adopt,
    Changed,
    Down,
    Ended,
    Exited,
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
)
from viscript.supervision.launch import BROKER, Launch
from viscript.supervision.states import Exit, State


def test_a_program_runs_when_it_is_on_the_bus(talk):
    assert talk.say(Start(Launch(1, "a", ready=BUS))) == [Spawn(1, 1)]
    talk.say(Spawned(1, 1))
    assert talk.state() is State.STARTING
    talk.say(Ready(1))
    assert talk.state() is State.RUNNING


def test_a_program_without_a_bus_runs_when_it_has_settled(talk):
    talk.say(Start(Launch(1, "a")))
    talk.say(Spawned(1, 1))
    assert talk.state() is State.STARTING
    talk.pass_time(states.SETTLE)
    assert talk.state() is State.RUNNING


def test_a_program_that_never_comes_to_the_bus_is_stopped_and_has_failed(talk):
    talk.say(Start(Launch(1, "a", ready=BUS)))
    talk.say(Spawned(1, 1))
    assert talk.pass_time(states.READY) == [Terminate(1)]
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
    talk.running(Launch(1, "a", restart=ALWAYS))
    talk.say(Exited(1, 1, Exit(3)))
    assert talk.state() is State.STOPPING
    assert talk.told[1].exit == Exit(3)
    assert talk.pass_time(10) == []
    talk.say(Ended(1, 1, Exit(3)))
    assert talk.state() is State.BACKOFF


def test_pauses_double_up_to_a_minute_and_the_id_stays(talk):
    talk.say(Start(Launch(1, "a", restart=ON_FAILURE)))
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
    talk.running(Launch(1, "a", restart=ALWAYS, failures=7, streak=7))
    talk.pass_time(ALWAYS.stable)
    talk.say(Ended(1, 1, Exit(1)))
    assert talk.pass_time(ALWAYS.delay) == [Spawn(1, 2)]


def test_policies(talk):
    for number, (policy, code, state) in enumerate(
        [
            ("never", 1, State.FAILED), ("on-failure", 0, State.EXITED),
            ("on-failure", 1, State.BACKOFF), ("always", 0, State.BACKOFF),
        ], 1,
    ):  # fmt: skip
        talk.running(Launch(number, f"a{number}", restart=RestartRule(policy)))
        talk.say(Ended(number, 1, Exit(code)))
        assert talk.state(number) is state


def test_what_is_told_to_stop_stays_stopped(talk):
    talk.running(Launch(1, "a", restart=ALWAYS))
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
    talk.say(Start(Launch(1, "a", restart=ALWAYS)))
    talk.say(SpawnFailed(1, 1, "no such file", permanent=True))
    assert talk.state() is State.FAILED
    assert talk.told[1].reason == "no such file"
    talk.say(Start(Launch(2, "a", restart=ALWAYS)))
    talk.say(SpawnFailed(2, 1, "the bus is away", permanent=False))
    assert talk.state(2) is State.BACKOFF


def test_a_launch_waits_for_what_it_needs(talk):
    talk.say(Start(Launch(1, "base", ready=BUS)))
    assert talk.say(Start(Launch(2, "top", after=(After("base"),)))) == []
    assert talk.told[2].reason == "waits for base"
    talk.say(Spawned(1, 1))
    assert talk.say(Ready(1)) == [Spawn(2, 1)]


def test_a_launch_fails_when_what_it_needs_is_not_there(talk):
    talk.say(Start(Launch(1, "top", after=(After("base"),))))
    assert talk.state() is State.FAILED
    assert "viscript start base" in talk.told[1].reason
    talk.say(Start(Launch(2, "base")))
    talk.say(Start(Launch(3, "top", after=(After("base"),))))
    talk.say(SpawnFailed(2, 1, "gone", permanent=True))
    assert talk.state(3) is State.FAILED


def test_waiting_ends(talk):
    talk.say(Start(Launch(1, "base", restart=ALWAYS)))
    talk.say(Start(Launch(2, "top", after=(After("base"),))))
    for generation in range(1, 40):
        talk.say(SpawnFailed(1, generation, "no", permanent=False))
        talk.pass_time(ALWAYS.cap)
    assert talk.state(2) is State.FAILED
    assert "waited 60 s for base" in talk.told[2].reason


def test_what_does_not_end_is_lost_and_never_replaced(talk):
    talk.running(Launch(1, "a", restart=ALWAYS))
    talk.say(Stop(1))
    talk.pass_time(Launch(1, "a").ends_within)
    assert talk.state() is State.LOST
    assert talk.pass_time(1000) == []
    assert talk.state() is State.FAILED


def test_what_is_mute_may_be_found_again(talk):
    talk.running(Launch(1, "a", restart=ALWAYS))
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
    talk.say(Adopt(Launch(3, "c", state=State.STARTING, generation=1, ready=BUS)))
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
    assert told(replace(launch, restart=ALWAYS)) == [State.BACKOFF]
    assert talk.pass_time(ALWAYS.delay) == [Spawn(1, 4)]


def test_down_stops_dependents_first_and_the_broker_last(talk):
    talk.running(Launch(BROKER, "broker", restart=ALWAYS))
    talk.running(Launch(1, "base"))
    talk.running(Launch(2, "top", after=(After("base"),)))
    assert talk.say(Down()) == [Terminate(2)]
    assert talk.say(Ended(2, 1, Exit(0))) == [Terminate(1)]
    assert talk.say(Ended(1, 1, Exit(0))) == [Terminate(BROKER)]
    talk.say(Ended(BROKER, 1, Exit(0)))
    assert talk.supervisor.launches == {}


def test_a_broker_that_waits_is_not_started_when_the_last_app_ends_on_the_way_down(talk):
    talk.running(Launch(BROKER, "broker", restart=ALWAYS))
    talk.running(Launch(1, "a"))
    assert talk.say(Down()) == [Terminate(1)]
    talk.pass_time(Launch(1, "a").ends_within)
    assert talk.state() is State.LOST
    talk.say(Ended(BROKER, 1, Exit(1)))
    assert talk.state(BROKER) is State.BACKOFF
    talk.now += states.LOST  # both are due now
    assert talk.pass_time(0) == []
    assert talk.state() is State.FAILED
    assert talk.state(BROKER) is State.EXITED
