"""When which signal is due while a program is stopped: steps, then KILL again and again."""

from __future__ import annotations

import signal

AGAIN = 0.1  # seconds between two KILLs

Step = tuple[int, float]


class Stopping:
    """Seconds are of a monotonic clock that the caller reads."""

    def __init__(self, usual: list[Step]) -> None:
        self._usual = [(int(number), float(wait)) for number, wait in usual]
        self._steps: list[Step] = []
        self.due: float | None = None  # of the next signal; None: nobody has asked
        self.killing = False
        self._sent = False  # the first signal of all
        self._killed_at: float | None = None

    @property
    def begun(self) -> bool:
        return self.due is not None

    def ask(self, steps: list[Step] | None, now: float) -> None:
        """Begin, or be quicker about it: of what is asked for the sooner end counts."""
        wanted = self._usual if steps is None else steps
        if self.due is not None:
            rest = self.due - now + sum(wait for _, wait in self._steps)
            if self.killing or rest <= sum(wait for _, wait in wanted):
                return
        self._steps = list(wanted)
        self.due = now

    def extend(self, until: float) -> None:
        """The program asks for more time: what comes next comes no sooner than `until`."""
        if self.due is not None and self._sent and not self.killing:
            self.due = max(self.due, until)

    def next_signal(self, now: float) -> int | None:
        """What is to be sent now."""
        if self.due is None or now < self.due:
            return None
        self._sent = True
        if self._steps:
            number, wait = self._steps.pop(0)
            self.due = now + wait
            self.killing = self.killing or number == signal.SIGKILL
        else:
            number, self.due, self.killing = signal.SIGKILL, now + AGAIN, True
        if number == signal.SIGKILL and self._killed_at is None:
            self._killed_at = now
        return number

    def hopeless(self, now: float, patience: float) -> bool:
        """KILL has not helped for so long that nothing will."""
        return self._killed_at is not None and now > self._killed_at + patience
