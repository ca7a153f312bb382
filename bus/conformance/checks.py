"""What a check is: a sentence and the function that plays it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bus.conformance.table import Table


@dataclass(frozen=True)
class Check:
    name: str
    play: Callable[[Table], None]


class Checks(list[Check]):
    """The checks of one subject; `check` adds the function that plays it, named by its sentence."""

    def check(self, name: str) -> Callable[[Callable[[Table], None]], Callable[[Table], None]]:
        def add(play: Callable[[Table], None]) -> Callable[[Table], None]:
            self.append(Check(name, play))
            return play

        return add
