"""What a router is put together from.

A part carries out some commands, answers some requests to the broker itself, and may have a timer. The
router asks for `handlers` and `answers` once, when the part is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bus import wire
from bus.routing.peers import Session

# Carries out one command of a session: it, the command, the body, monotonic seconds. What it raises as
# `RemoteProtocolError` is told to the session, with the command's `id` as `ref`.
Handler = Callable[[Session, Any, bytes, float], None]


@dataclass(frozen=True, slots=True)
class Question:
    """A request to the broker itself, which the session may make."""

    session: Session
    ref: int
    body: bytes
    now: float


# Gives the value to answer with, one of `bus.signals`; None when `Sessions.answer` will be called later.
Answer = Callable[[Question], object]


class Part:
    """Nothing; a part says what it has."""

    @property
    def handlers(self) -> Mapping[type[wire.Command], Handler]:
        return {}

    @property
    def answers(self) -> Mapping[str, Answer]:
        """By subject, under `$SYS`."""
        return {}

    @property
    def next_deadline(self) -> float | None:
        """Monotonic seconds at which `handle_timer` has work."""
        return None

    def handle_timer(self, now: float) -> None:
        """Do what is due."""

    def drain(self, now: float) -> None:
        """The broker is about to stop."""

    @property
    def busy(self) -> bool:
        """Whether a broker that stops should wait for what is under way here."""
        return False
