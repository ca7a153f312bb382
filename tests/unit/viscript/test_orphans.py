"""The guard: what was started and has not ended is killed when its starter is gone, and nothing else."""

import os
import subprocess
import sys

from tests.support.broker import until

# Starts two groups of a shell and its child, ends the first, and tells both numbers; then it waits.
STARTER = """
import os, signal, subprocess, sys, time
from viscript.orphans import Guard
guard = Guard()
started = []
for _ in range(2):
    sleeper = ["sh", "-c", "exec >&-; sleep 600; true"]
    started.append(subprocess.Popen(sleeper, start_new_session=True))
    guard.holds(started[-1].pid)
if "let go" in sys.argv:
    guard.lets_go(started[0].pid)
print(*[process.pid for process in started], flush=True)
time.sleep(600)
"""


def start(*arguments: str) -> tuple[subprocess.Popen[str], list[int]]:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    return starter, [int(word) for word in starter.stdout.readline().split()]


def lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_groups_of_a_starter_that_is_killed_end_with_all_that_is_in_them() -> None:
    starter, groups = start()
    assert all(lives(group) for group in groups)
    starter.kill()
    starter.communicate()
    until(lambda: not any(lives(group) for group in groups), "the end of the groups")


def test_a_group_that_was_let_go_is_not_touched() -> None:
    starter, (spared, held) = start("let go")
    try:
        starter.kill()
        starter.communicate()
        until(lambda: not lives(held), "the end of the group")
        assert lives(spared)
    finally:
        os.killpg(spared, 9)
