"""Who waits for whom, up and down, and what was lost, as dialogues."""

import pytest

from tests.support.supervising import ALWAYS, BUS, Talk
from viscript.rules import After, Probe, StopStep
from viscript.supervision import states
from viscript.supervision.events import (
    Completed,
    Ended,
    Found,
    Mute,
    Ready,
    Spawn,
    Spawned,
    Start,
    Stop,
    Terminate,
    Update,
)
from viscript.supervision.launch import Launch
from viscript.supervision.states import Exit, State


@pytest.mark.parametrize("until", ["started", "ready"])
def test_conditions_of_what_runs(talk, until):
    talk.say(Start(Launch(1, "base", ready=BUS)))
    assert talk.say(Start(Launch(2, "top", after=(After("base", until),)))) == []
    begun = talk.say(Spawned(1, 1))
    assert begun == ([Spawn(2, 1)] if until == "started" else [])
    ready = talk.say(Ready(1))
    assert ready == ([Spawn(2, 1)] if until == "ready" else [])


def test_what_waits_for_an_end_waits_for_a_good_one(talk):
    talk.running(Launch(1, "migrate"))
    assert talk.say(Start(Launch(2, "top", after=(After("migrate", "completed"),)))) == []
    assert talk.pass_time(3600) == []  # as long as it takes
    assert talk.say(Ended(1, 1, Exit(0))) == [Spawn(2, 1)]
    assert talk.say(Start(Launch(3, "late", after=(After("migrate", "completed"),)))) == [
        Spawn(3, 1)
    ]
    talk.running(Launch(4, "other"))
    talk.say(Start(Launch(5, "top", after=(After("other", "completed"),))))
    talk.say(Ended(4, 1, Exit(1)))
    assert talk.state(5) is State.FAILED
    assert talk.told[5].reason == "needs other, which has failed; see: viscript why other"


def test_a_daemon_that_comes_later_is_told_what_has_ended_well(talk):
    talk.say(Completed("migrate"))
    assert talk.say(Start(Launch(1, "top", after=(After("migrate", "completed"),)))) == [
        Spawn(1, 1)
    ]


def test_one_that_takes_long_to_be_ready_is_waited_for_as_long_as_it_may(talk):
    talk.say(Start(Launch(1, "base", ready=Probe("tcp", "localhost:1", failures=300))))
    talk.say(Spawned(1, 1))
    talk.say(Start(Launch(2, "top", after=(After("base"),))))
    assert talk.pass_time(300) == []
    assert talk.say(Ready(1, 1)) == [Spawn(2, 1)]


# Stopping.


def chain(talk: Talk) -> None:
    """base is needed by middle, which is needed by top; another one needs nothing."""
    talk.running(Launch(1, "base"))
    talk.running(Launch(2, "middle", after=(After("base"),)))
    talk.running(Launch(3, "top", after=(After("middle", "started"),)))
    talk.running(Launch(4, "other"))


def test_what_needs_it_stops_first_and_the_last_one_up_is_the_first(talk):
    chain(talk)
    assert [x.app for x in talk.supervisor.dependants(1)] == ["top", "middle"]
    assert talk.say(Stop(1)) == [Terminate(3)]
    assert talk.told[1].reason == "stops after top, middle"
    assert talk.say(Ended(3, 1, Exit(0))) == [Terminate(2)]
    assert talk.say(Ended(2, 1, Exit(0))) == [Terminate(1)]
    talk.say(Ended(1, 1, Exit(0)))
    assert [talk.state(x) for x in (1, 2, 3, 4)] == [State.EXITED] * 3 + [State.RUNNING]


def test_nobody_stops_as_long_as_another_launch_serves_them(talk):
    chain(talk)
    talk.running(Launch(5, "base"))
    assert talk.say(Stop(1)) == [Terminate(1)]
    assert talk.state(2) is State.RUNNING


def test_they_are_left_without_when_all_that_serve_them_stop(talk):
    chain(talk)
    talk.running(Launch(5, "base"))
    assert talk.supervisor.dependants(1) == []
    assert [x.app for x in talk.supervisor.dependants(1, [5])] == ["top", "middle"]
    talk.say(Stop(1))
    assert talk.say(Stop(5)) == [Terminate(3)]


def test_what_waited_only_for_its_end_does_not_need_it(talk):
    talk.running(Launch(1, "base"))
    talk.say(Start(Launch(2, "top", after=(After("base", "completed"),))))
    assert talk.say(Stop(1)) == [Terminate(1)]
    assert talk.state(2) is State.FAILED  # it will not come about


def test_a_dependant_that_does_not_end_does_not_hold_the_others_for_ever(talk):
    chain(talk)
    talk.say(Stop(1))
    within = talk.told[3].ends_within
    assert talk.pass_time(within) == [Terminate(2)]
    assert talk.state(3) is State.LOST


def test_force_kills_at_once_whoever_needs_it(talk):
    chain(talk)
    assert Terminate(1, force=True) in talk.say(Stop(1, force=True))


def test_a_circle_that_came_about_as_rules_changed_still_stops(talk):
    talk.running(Launch(1, "a"))
    talk.running(Launch(2, "b", after=(After("a"),)))
    talk.say(Update(Launch(1, "a", after=(After("b"),))))
    assert talk.say(Stop(1)) == [Terminate(1), Terminate(2)]


def test_nothing_is_started_on_what_is_to_stop(talk):
    talk.running(Launch(1, "base"))
    talk.say(Stop(1))
    talk.say(Start(Launch(2, "top", after=(After("base"),))))
    assert talk.state(2) is State.FAILED


def test_signals_that_may_take_long_are_given_their_time(talk):
    steps = (StopStep(15, 100), StopStep(2, 50))
    talk.running(Launch(1, "a", stops=steps))
    talk.say(Stop(1))
    talk.pass_time(150)
    assert talk.state() is State.STOPPING
    talk.pass_time(25)
    assert talk.state() is State.LOST


# Lost, and back.


def test_what_was_lost_for_good_keeps_its_place_and_may_come_back(talk):
    talk.running(Launch(1, "a", restart=ALWAYS))
    talk.say(Mute(1, "its keeper does not answer"))
    talk.pass_time(states.LOST)
    assert talk.state() is State.FAILED
    assert 1 in talk.supervisor.launches  # so nothing takes its place
    talk.say(Found(1))
    assert talk.state() is State.RUNNING


def test_what_was_lost_for_good_and_turns_out_dead_follows_its_rule(talk):
    talk.running(Launch(1, "a", restart=ALWAYS))
    talk.say(Mute(1, "silence"))
    talk.pass_time(states.LOST)
    talk.say(Ended(1, 1, Exit()))
    assert talk.state() is State.BACKOFF


def test_stop_tries_again_at_what_was_lost_for_good(talk):
    talk.running(Launch(1, "a"))
    talk.say(Mute(1, "silence"))
    talk.pass_time(states.LOST)
    assert talk.say(Stop(1)) == [Terminate(1)]
    talk.say(Ended(1, 1, Exit(None, 9)))
    assert talk.state() is State.EXITED
