"""Makes events of what the launcher tells: which launch went from which state to which, why, by whom."""

from __future__ import annotations

import re
import time
from contextvars import ContextVar

from viscript.eventlog import EventLog
from viscript.events import BROKER, DAEMON, Event
from viscript.records import Record

asker: ContextVar[str] = ContextVar("asker", default="")
"""Who asked for what is being done now; the daemon sets it around every command."""

_ASKED = frozenset({"start", "stop", "down", "restart", "update"})
_NAMES = {"again": "restart"}
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")


def cause_of(event: object) -> str:
    """The kind of a supervisor's event in words: SpawnFailed is `spawn failed`."""
    name = _WORDS.sub(" ", type(event).__name__).lower()
    return _NAMES.get(name, name)


class Recorder:
    """Told of every change, also of those that are none; writes an event where a state has changed."""

    def __init__(self, events: EventLog) -> None:
        self.events = events
        self._states: dict[int, str] = {}
        self._broker = ""

    def changed(self, record: Record, before: str, cause: str) -> None:
        """`record` as it is now; `before` is the state that was stored, for a launch not told of yet."""
        known = self._states.get(record.id)
        began = known is None and record.restarts == 0 and cause == "start"
        last = "" if began else known if known is not None else before
        if record.live:
            self._states[record.id] = record.state
        else:
            self._states.pop(record.id, None)
        if last == record.state and (known is not None or cause != "adopt"):
            return
        self.events.add(
            Event(
                seq=0, ts=time.time(), app=record.app, id=record.id, before=last, to=record.state,
                cause=cause, by=asker.get() if cause in _ASKED else "", text=_text(record),
                groups=list(record.groups),
            )
        )  # fmt: skip

    def broker_is(self, state: str, reason: str, cause: str) -> None:
        if state != self._broker:
            self._note(BROKER, self._broker, state, cause, reason)
            self._broker = state

    def daemon_is(self, state: str, text: str = "") -> None:
        """`up`, `ended` while what it started goes on, or `down`."""
        self._note(DAEMON, "", state, state, text)

    def _note(self, app: str, before: str, to: str, cause: str, text: str) -> None:
        self.events.add(
            Event(seq=0, ts=time.time(), app=app, before=before, to=to, cause=cause, text=text)
        )


def _text(record: Record) -> str:
    parts = []
    if record.exit is not None and record.state in {"stopping", "backoff", "exited", "failed"}:
        parts.append(f"exit {record.exit}")
    if record.state == "running" and record.pid is not None:
        parts.append(f"pid {record.pid}")
    return "; ".join([*parts, record.reason] if record.reason else parts)
