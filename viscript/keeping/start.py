"""Forks the program: it waits until its pid is written down, and its failure to begin is told as itself."""

from __future__ import annotations

import json
import os
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
    """The pid of the program, which runs; `StartProblem`. `begun` is called before it does."""
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
