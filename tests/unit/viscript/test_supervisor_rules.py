"""What a supervisor does when something has ended or is not well, as dialogues."""

from tests.support.supervising import ALWAYS, BUS, ON_FAILURE, Talk
from viscript.rules import Probe, RestartRule
from viscript.supervision.events import (
    Again,
    Ended,
    Extended,
    Missed,
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
from viscript.supervision.launch import Launch
from viscript.supervision.states import Exit, State


def ends(talk: Talk, rule: RestartRule, *codes: int | None) -> Launch:
    """A launch whose generations end with these codes, one after the other."""
    talk.say(Start(Launch(1, "a", restart=rule)))
    for generation, code in enumerate(codes, 1):
        talk.say(Spawned(1, generation))
        talk.say(Ended(1, generation, Exit(code)))
        if talk.state() is State.BACKOFF and generation < len(codes):
            talk.pass_time((talk.supervisor.next_timer() or 0) - talk.now)
    return talk.told[1]


def test_exit_codes_that_do_not_heal_are_not_tried_again(talk):
    assert ends(talk, ON_FAILURE, 78).state is State.FAILED
    assert "78" in talk.told[1].reason
    assert ends(talk, ON_FAILURE, 127).state is State.FAILED
    assert ends(talk, ALWAYS, 127).state is State.BACKOFF  # always is always


def test_a_rule_names_its_own_codes(talk):
    rule = RestartRule("on-failure", success=(0, 3), never_codes=(5,))
    assert ends(talk, rule, 3).state is State.EXITED
    assert ends(talk, rule, 5).state is State.FAILED
    assert ends(talk, rule, 78).state is State.BACKOFF
    assert ends(talk, RestartRule("never", success=(7,)), 7).state is State.EXITED


def test_what_fails_again_and_again_is_given_up(talk):
    launch = ends(talk, RestartRule("always", give_up=3), 1, 1, None)
    assert launch.state is State.FAILED
    assert launch.reason == "given up after 3 failures in a row"
    assert talk.pass_time(1000) == []


def test_a_good_end_between_them_breaks_the_row(talk):
    assert ends(talk, RestartRule("always", give_up=2), 1, 0, 1).state is State.BACKOFF
    assert ends(talk, RestartRule("always", give_up=2), 1, 0, 1, 1).state is State.FAILED


def test_what_cannot_be_spawned_counts_as_a_failure(talk):
    talk.say(Start(Launch(1, "a", restart=RestartRule("always", give_up=1))))
    talk.say(SpawnFailed(1, 1, "the bus is away", permanent=False))
    assert talk.state() is State.FAILED
    assert "the bus is away" in talk.told[1].reason


def test_delay_cap_and_jitter_are_those_of_the_rule():
    talk = Talk(jitter=1.2)
    talk.say(Start(Launch(1, "a", restart=RestartRule("always", delay=2, cap=5))))
    pauses = []
    for generation in range(1, 5):
        talk.say(Spawned(1, generation))
        talk.say(Ended(1, generation, Exit(0)))
        due = talk.supervisor.next_timer()
        assert due is not None
        pauses.append(round(due - talk.now, 3))
        talk.pass_time(pauses[-1] + 0.001)
    assert pauses == [2.4, 4.8, 6.0, 6.0]


def test_only_a_run_as_long_as_the_rule_says_forgives(talk):
    rule = RestartRule("always", give_up=2, stable=10)
    talk.running(Launch(1, "a", restart=rule, failures=1))
    talk.pass_time(9)
    talk.say(Ended(1, 1, Exit(1)))
    assert talk.state() is State.FAILED
    talk.running(Launch(2, "b", restart=rule, failures=1))
    talk.pass_time(10)
    talk.say(Ended(2, 1, Exit(1)))
    assert talk.state(2) is State.BACKOFF


# Alive but not well.


def test_what_is_not_well_is_degraded_and_may_recover(talk):
    talk.running(Launch(1, "a", alive=BUS))
    talk.say(Unwell(1, 1, "no answer"))
    assert (talk.state(), talk.told[1].reason) == (State.DEGRADED, "no answer")
    talk.say(Well(1, 1))
    assert (talk.state(), talk.told[1].reason) == (State.RUNNING, "")


def test_what_does_not_recover_is_ended_and_its_rule_decides(talk):
    launch = Launch(1, "a", alive=BUS, restart=ON_FAILURE)
    talk.running(launch)
    talk.say(Unwell(1, 1, "no answer"))
    assert talk.pass_time(launch.well_within) == [Terminate(1)]
    talk.say(Ended(1, 1, Exit(0)))  # that it ended well when it was told to does not count
    assert talk.state() is State.BACKOFF
    assert talk.told[1].reason == "was not well: no answer"


def test_what_a_probe_says_of_an_earlier_run_does_not_count(talk):
    talk.running(Launch(1, "a", restart=ALWAYS))
    talk.say(Ended(1, 1, Exit(1)))
    talk.pass_time(1)
    talk.say(Spawned(1, 2))
    talk.say(Ready(1, 1))
    assert talk.state() is State.STARTING
    talk.say(Ready(1, 2))
    talk.say(Unwell(1, 1, "late"))
    assert talk.state() is State.RUNNING


# Started again by somebody.


def test_what_asks_for_time_to_get_ready_has_it(talk):
    talk.say(Start(Launch(1, "a", ready=Probe("notify"))))
    talk.say(Spawned(1, 1))
    talk.say(Extended(1, 1, 20.0))  # less than it has anyway
    talk.pass_time(29.0)
    talk.say(Extended(1, 1, 60.0))
    talk.pass_time(30.0)
    assert talk.state() is State.STARTING
    talk.say(Extended(1, 0, 600.0))  # an earlier run said that
    assert talk.pass_time(2.0) == [Terminate(1)]
    assert talk.told[1].reason == "was not ready within the time that it had asked for"


def test_what_asks_for_time_to_end_is_not_lost(talk):
    talk.running(Launch(1, "a", ready=BUS))
    talk.say(Stop(1))
    talk.say(Extended(1, 1, 100.0))
    talk.pass_time(100.0)
    assert talk.state() is State.STOPPING
    talk.pass_time(31.0)
    assert talk.state() is State.LOST


def test_nobody_has_time_for_ever(talk):
    talk.say(Start(Launch(1, "a", ready=Probe("notify"))))
    talk.say(Spawned(1, 1))
    talk.say(Extended(1, 1, 1e12))
    assert talk.pass_time(4000.0) == [Terminate(1)]


def test_again_ends_it_and_starts_it_at_once_whatever_its_rule(talk):
    talk.running(Launch(1, "a"))
    assert talk.say(Again(1)) == [Terminate(1)]
    assert talk.say(Ended(1, 1, Exit(None, 15))) == [Spawn(1, 2)]
    assert (talk.told[1].restarts, talk.told[1].failures) == (1, 0)


def test_again_shortens_a_pause(talk):
    talk.running(Launch(1, "a", restart=ALWAYS))
    talk.say(Ended(1, 1, Exit(1)))
    assert talk.say(Again(1)) == [Spawn(1, 2)]


def test_the_newest_wish_counts(talk):
    talk.running(Launch(1, "a"))
    talk.say(Stop(1))
    assert talk.say(Again(1)) == []
    assert talk.say(Ended(1, 1, Exit(0))) == [Spawn(1, 2)]
    talk.say(Again(1))
    talk.say(Stop(1))
    talk.say(Ended(1, 2, Exit(0)))
    assert talk.state() is State.EXITED


def test_a_daemon_that_dies_in_the_middle_of_it_has_not_forgotten_it(talk):
    talk.say(Missed(Launch(1, "a", state=State.STOPPING, generation=1, again=True), Exit(None, 15)))
    assert talk.state() is State.STARTING
    assert talk.told[1].generation == 2


def test_other_rules_count_from_now_on(talk):
    talk.running(Launch(1, "a"))
    talk.say(Update(Launch(1, "a", restart=ALWAYS)))
    talk.say(Ended(1, 1, Exit(1)))
    assert talk.state() is State.BACKOFF
