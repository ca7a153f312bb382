"""What follows when a run has ended by itself."""

from __future__ import annotations

from msgspec import Struct

from viscript.rules import HOPELESS, RestartRule
from viscript.supervision.launch import Launch
from viscript.supervision.states import MAX_DOUBLINGS, Exit, State


class Verdict(Struct, frozen=True):
    """EXITED, FAILED or BACKOFF, and why, for people."""

    state: State
    reason: str
    failures: int  # in a row, this one counted


def is_success(rule: RestartRule, how: Exit, problem: str) -> bool:
    """Whether a run went well: what we had to end ourselves did not."""
    return not problem and how.code is not None and how.code in rule.success


def judge(launch: Launch, how: Exit) -> Verdict:
    """`launch` has ended and nobody asked for it."""
    rule, problem = launch.restart, launch.problem
    if is_success(rule, how, problem):
        state = State.BACKOFF if rule.policy == "always" else State.EXITED
        return Verdict(state, "", 0)
    failures = launch.failures + 1
    if rule.policy == "never":
        return Verdict(State.FAILED, problem, failures)
    if not problem and how.code in hopeless(rule):
        told = f"exit code {how.code} is one that starting it again does not heal"
        return Verdict(State.FAILED, told, failures)
    return _again_or_never(rule, problem, failures)


def judge_spawn(launch: Launch, problem: str, *, permanent: bool) -> Verdict:
    """It could not even be started."""
    failures = launch.failures + 1
    if permanent or launch.restart.policy == "never":
        return Verdict(State.FAILED, problem, failures)
    return _again_or_never(launch.restart, problem, failures)


def _again_or_never(rule: RestartRule, reason: str, failures: int) -> Verdict:
    if rule.give_up and failures >= rule.give_up:
        told = f"given up after {failures} failures in a row"
        return Verdict(State.FAILED, f"{told}: {reason}" if reason else told, failures)
    return Verdict(State.BACKOFF, reason, failures)


def hopeless(rule: RestartRule) -> tuple[int, ...]:
    """Exit codes after which it is not started again."""
    if rule.never_codes:
        return rule.never_codes
    return HOPELESS if rule.policy == "on-failure" else ()


def pause(rule: RestartRule, streak: int) -> float:
    """Seconds until the next attempt after `streak` others in a row, before jitter."""
    return min(rule.cap, rule.delay * 2.0 ** min(streak, MAX_DOUBLINGS))
