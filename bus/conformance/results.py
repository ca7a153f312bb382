"""What came of a check, and what ends one early."""

from __future__ import annotations

from dataclasses import dataclass

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class Result:
    """One check: what was sent last before it was decided, what was expected, what came."""

    name: str
    outcome: str  # one of PASSED, FAILED, SKIPPED
    sent: str = ""
    expected: str = ""
    came: str = ""


class Unexpected(Exception):
    """The broker did not do what SB/1 says."""

    def __init__(self, expected: str, came: str) -> None:
        super().__init__(f"expected {expected}, came {came}")
        self.expected = expected
        self.came = came


class Skipped(Exception):
    """The broker, or the keys, cannot be asked that; the message says why."""
