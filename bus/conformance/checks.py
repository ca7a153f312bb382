"""What a check is, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bus.conformance.table import Table

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class Result:
    """One check: what was sent last before it was decided, what was expected, what came."""

    name: str
    outcome: str  # one of PASSED, FAILED, SKIPPED
    sent: str = ""
    expected: str = ""
    came: str = ""


@dataclass(frozen=True)
class Check:
    name: str
    play: Callable[[Table], None]


class Unexpected(Exception):
    """The broker did not do what SB/1 says."""

    def __init__(self, expected: str, came: str) -> None:
        super().__init__(f"expected {expected}, came {came}")
        self.expected = expected
        self.came = came


class Skipped(Exception):
    """The broker, or the keys, cannot be asked that; the message says why."""


class Checks(list[Check]):
    """The checks of one subject; `check` adds the function that plays it, named by its sentence."""

    def check(self, name: str) -> Callable[[Callable[[Table], None]], Callable[[Table], None]]:
        def add(play: Callable[[Table], None]) -> Callable[[Table], None]:
            self.append(Check(name, play))
            return play

        return add
