"""From single answers of a probe to whether an app is well."""

from __future__ import annotations

from viscript.rules import Probe


class Health:
    """Well until `probe.failures` attempts in a row have failed, and again after the first good one."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._failures = 0
        self.well = True

    def take(self, problem: str | None) -> bool:
        """One attempt's problem, None for none; True when `well` has changed by it."""
        before = self.well
        self._failures = 0 if problem is None else self._failures + 1
        if problem is None:
            self.well = True
        elif self._failures >= self._probe.failures:
            self.well = False
        return self.well != before


def pause(probe: Probe, attempts: int, *, first: float = 0.05) -> float:
    """Seconds between two attempts at getting ready: short at first, as most are ready soon."""
    return min(probe.every, first * 2.0 ** min(attempts, 16))
