"""Begins the program; its failure to begin is told as itself.

Mostly with posix_spawn, which copies nothing of us: by then it runs, and its pid is written down just after
that. Between the two it is found by its mark, which is in `spec.json` and in its environment, and the lock
is held until it has that. What posix_spawn cannot do is done in a fork of us, which waits until its pid is
written down.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from viscript.keeping import child

if TYPE_CHECKING:
    from viscript.keeping.child import Identity
    from viscript.keeping.output import Output


class StartProblem(Exception):
    """It could not be started."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(text)
        self.errno = errno
        self.text = text

    @classmethod
    def of(cls, problem: OSError) -> StartProblem:
        return cls(problem.errno or 5, problem.strerror or str(problem))


def spawn(
    spec: dict[str, Any], env: dict[str, str], who: Identity, output: Output,
    begun: Callable[[int], None],
) -> int:  # fmt: skip
    """The pid of the program, which runs; `StartProblem`. `begun` writes down its pid."""
    changed = who.uid >= 0 or who.gid >= 0
    if changed or spec["terminal"] or spec["limits"] or spec["nice"] is not None:
        return _fork(spec, env, who, output, begun)
    pid = _spawn(spec, env, output.path)
    try:
        begun(pid)
    except OSError as problem:  # not written down: nobody would know of it
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise StartProblem.of(problem) from None
    return pid


def _spawn(spec: dict[str, Any], env: dict[str, str], output: str) -> int:
    with_output = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        # Open for reading too: its own descriptor counts as a reader, so no EPIPE when its keeper dies.
        (os.POSIX_SPAWN_OPEN, 1, output, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    mask = os.umask(spec["umask"])
    try:
        with child.named(f"cwd {spec['cwd']}"):
            os.chdir(spec["cwd"])
        return os.posix_spawn(
            spec["argv"][0], spec["argv"], env, file_actions=with_output, setsid=True,
            setsigmask=(), setsigdef=child.IGNORED,
        )  # fmt: skip
    except (OSError, ValueError) as problem:
        raise StartProblem(*child.reason(problem)) from None
    finally:
        os.umask(mask)
        os.chdir("/")


def _fork(
    spec: dict[str, Any], env: dict[str, str], who: Identity, output: Output,
    begun: Callable[[int], None],
) -> int:  # fmt: skip
    failure, report = os.pipe2(os.O_CLOEXEC)
    wait, gate = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(gate)
        child.become(spec, env, who, output.path, (output.fileno(), output.slave), wait, report)
    for fd in (report, wait, output.slave):
        if fd >= 0:
            os.close(fd)
    try:
        begun(pid)
        os.write(gate, b".")
    except OSError as problem:  # not written down: closing the gate ends it
        os.close(gate)
        os.waitpid(pid, 0)
        raise StartProblem.of(problem) from None
    os.close(gate)
    told = os.read(failure, 4096)  # nothing, when exec has closed the other end
    os.close(failure)
    if told:
        os.waitpid(pid, 0)
        number, text = json.loads(told)
        raise StartProblem(number, text)
    return pid
