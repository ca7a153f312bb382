"""Why: the sentences for every state, and what is open of what a launch waits for."""

import pytest

from viscript.reasons import meaning, reason, waits
from viscript.records import ExitInfo, Status
from viscript.rules import After


def status(state: str, **more) -> Status:
    return Status(
        **{"id": 4, "app": "web", "key": "k", "since": 1.0, "args": [], "started": 1.0} | more,
        state=state,
    )


def test_what_is_waited_for_is_named_with_its_state():
    launches = [status("blocked", app="db", id=0), status("starting", app="db", id=1, pid=7)]
    waiting = waits([After("db"), After("db", "started"), After("cache")], launches, {})
    assert [(w.app, w.state, w.met) for w in waiting] == [
        ("db", "starting", False), ("db", "starting", True), ("cache", "not started", False),
    ]  # fmt: skip
    why = reason(status("blocked", reason="waits for db, cache"), waiting, 0)
    assert why.text == (
        "waits for db to be ready (it is starting), cache to be ready (it is not started)"
    )
    assert why.advice == ["viscript why db", "viscript start cache"]


def test_what_must_be_completed_must_have_ended_well():
    def told(launches: list, outcomes: dict) -> tuple[str, bool]:
        (found,) = waits([After("db", "completed")], launches, outcomes)
        return found.state, found.met

    assert told([], {"db": True}) == ("exited", True)
    assert told([], {"db": False}) == ("failed", False)
    assert told([], {}) == ("not started", False)
    assert told([status("running", app="db")], {"db": True}) == ("running", False)


def test_what_has_ended_well_is_not_ready_and_has_to_be_started():
    waiting = waits([After("db")], [], {"db": True})
    assert [(w.state, w.met) for w in waiting] == [("exited", False)]
    assert reason(status("blocked"), waiting, 0).advice == ["viscript start db"]


def test_one_instance_that_has_come_so_far_is_enough():
    launches = [status("running", app="db", id=1), status("backoff", app="db", id=2)]
    (found,) = waits([After("db")], launches, {})
    assert (found.state, found.met) == ("running", True)


def test_started_is_what_runs_also_when_it_is_not_well():
    (found,) = waits([After("db", "started")], [status("degraded", app="db")], {})
    assert found.met


def test_back_off_tells_how_often_and_when_next():
    ended = ExitInfo(3, None, "by itself")
    why = reason(status("backoff", exit=ended, failures=4, next_try=12.5), [], 10.0)
    assert why.text == (
        "ended with exit code 3, by itself, 4 times in a row; is started again in 2.5 s"
    )


@pytest.mark.parametrize(
    ("code", "signal", "how", "told"),
    [
        (
            127,
            None,
            "by itself",
            "exit code 127, by itself (by convention: a command was not found)",
        ),
        (5, None, "by itself", "exit code 5, by itself"),
        (None, "SIGSEGV", "by itself", "SIGSEGV, by itself (a fault in the program itself)"),
        (None, "SIGKILL", "stopped", "SIGKILL, stopped"),
        (None, None, "nobody saw it end", "an exit code that nobody knows (nobody saw it end)"),
    ],
)
def test_an_exit_says_what_it_mostly_means(code, signal, how, told):
    assert meaning(ExitInfo(code, signal, how)) == told


@pytest.mark.parametrize(
    "state",
    [
        "blocked",
        "starting",
        "running",
        "stopping",
        "backoff",
        "lost",
        "exited",
        "failed",
        "new one",
    ],
)
def test_every_state_has_a_sentence(state):
    assert reason(status(state), [], 0.0).text
