"""What a client waits for, and how it ends: with a value, or an error named by whose fault it is. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec

from bus import wire
from bus.errors import (
    BusError,
    DeadlineExceeded,
    NotAuthorised,
    NoTopic,
    NotPresent,
    RemoteProtocolError,
    StoreFull,
    Unreachable,
)
from bus.sending import milliseconds

DEADLINE_GRACE = 0.5  # seconds that the broker's own 408 may take to reach us
FIRST_PAUSE, LAST_PAUSE = 0.05, 1.0  # seconds before a request is sent again


class Settled(msgspec.Struct, frozen=True):
    """The command `id` came to its end: with a body, an OK and records, or with an error to raise."""

    id: int
    body: bytes = b""
    error: BusError | None = None
    ok: wire.Ok | None = None
    records: Sequence[tuple[wire.Record, bytes]] = ()


class SettledTogether(msgspec.Struct, frozen=True):
    """Several commands that came to their end at once."""

    each: list[Settled]


class Part(msgspec.Struct, frozen=True):
    """One of several replies to the request `id`: a chunk of a stream, or one server's answer."""

    id: int
    sender: str
    body: bytes
    error: BusError | None = None


class Withdrawn(msgspec.Struct, frozen=True):
    """The broker has taken away the subscription `sid`, or the service `subject` when that is None."""

    subject: str
    sid: int | None
    error: BusError


class Postponed(msgspec.Struct, frozen=True):
    """A request will be sent again in so many seconds: `handle_timer` is needed by then."""

    seconds: float


class Unknown(msgspec.Struct, frozen=True):
    """A command that this client does not know, to be ignored."""

    code: int


class Waiting(msgspec.Struct):
    """One command that has not come to its end."""

    verb: str  # with the subject, for the error text
    subject: str
    deadline: float | None = None  # monotonic seconds
    left: bool = False  # handed to the transport
    many: bool = False  # more than one reply may come
    again: wire.Request | wire.Publish | None = None  # may be sent again, with `body`
    body: bytes = b""
    tries: int = 1
    due: float | None = None  # when it is sent again
    pull: wire.Pull | None = None
    records: list[tuple[wire.Record, bytes]] | None = None  # of a pull or read
    abandoned: bool = False  # a pull that nobody waits for: what it brings has to go back

    def __str__(self) -> str:
        return f"{self.verb} {self.subject}"

    def repeat(self, now: float) -> wire.Command:
        """The command once more, with the time that is left; only for what has `again`."""
        self.tries += 1
        command = self.again
        if isinstance(command, wire.Request) and self.deadline is not None:
            left = milliseconds(self.deadline - DEADLINE_GRACE - now)
            return msgspec.structs.replace(command, dl=left)
        assert command is not None  # noqa: S101 - only what may be sent again gets here
        return command

    def waits_for_broker(self, error: wire.Error) -> bool:
        """Whether it is to be sent again to the broker that comes after this one."""
        return self.again is not None and error.num == 503

    def pause(self, error: wire.Error) -> float | None:
        """Seconds after which it is sent again although it got `error`; None: the error is its end.

        Nobody there is an answer, except where somebody was: a worker that left, or the ones
        that served before the broker was restarted and are not back yet.
        """
        if not isinstance(self.again, wire.Request) or error.num != 404:
            return None
        left = error.err == "not_present" and self.again.to is None
        if not left and self.tries == 1:
            return None
        return float(min(LAST_PAUSE, FIRST_PAUSE * 2 ** min(self.tries - 1, 10)))


class Ledger:
    """All that one client waits for, by the id of its command. `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._waiting: dict[int, Waiting] = {}
        self.get = self._waiting.get
        self.add = self._waiting.__setitem__

    def __contains__(self, ref: int) -> bool:
        return ref in self._waiting

    def new_id(self) -> int:
        return next(self._ids)

    def items(self) -> list[tuple[int, Waiting]]:
        return list(self._waiting.items())

    def end(self, ref: int | None) -> Waiting | None:
        """It is over; None when it was given up before."""
        return None if ref is None else self._waiting.pop(ref, None)

    def lost(self, kind: type[BusError], reason: str) -> list[Settled]:
        """The connection is gone: what had left has failed, unless it may be sent again."""
        failed = []
        for ref, waiting in self.items():
            waiting.due = None
            if waiting.left and waiting.again is None:
                del self._waiting[ref]
                if not waiting.abandoned:
                    failed.append(Settled(ref, error=kind(f"{waiting}: {reason}, result unknown")))
        return failed

    def give_up(self, reason: str) -> list[Settled]:
        """All that waits has failed, whether it had left or not: the key is not let in any more."""
        failed = [
            Settled(ref, error=NotAuthorised(f"{waiting}: {reason}"))
            for ref, waiting in self.items()
        ]
        self._waiting.clear()
        return failed

    def next_due(self, now: float) -> list[float]:
        """Seconds until something is overdue or due to be sent again; for each of them."""
        times = [w.deadline - now for w in self._waiting.values() if w.deadline is not None]
        times += [w.due - now for w in self._waiting.values() if w.due is not None]
        return times

    def overdue(self, now: float) -> list[Settled]:
        """What has got no answer in time, which is thereby over."""
        late = [
            (i, w) for i, w in self._waiting.items() if w.deadline is not None and w.deadline <= now
        ]
        for ref, _ in late:
            del self._waiting[ref]
        return [
            Settled(ref, error=DeadlineExceeded(f"{waiting}: no reply in time"))
            for ref, waiting in late
            if not waiting.abandoned
        ]

    def due(self, now: float) -> list[tuple[int, Waiting]]:
        """What is to be sent again now."""
        due = [(i, w) for i, w in self._waiting.items() if w.due is not None and w.due <= now]
        for _, waiting in due:
            waiting.due = None
        return due


_BY_NAME: dict[str, type[BusError]] = {"no_topic": NoTopic, "no_consumer": NoTopic}
_BY_NUMBER: dict[int, type[BusError]] = {
    401: NotAuthorised, 403: NotAuthorised, 404: NotPresent, 408: DeadlineExceeded,
    503: Unreachable, 507: StoreFull,
}  # fmt: skip


def as_exception(error: wire.Error) -> BusError:
    """What the caller of a command gets that the broker refused."""
    kind = _BY_NAME.get(error.err) or _BY_NUMBER.get(error.num)
    if kind is None:
        return RemoteProtocolError(error.num, error.err, error.msg)
    return kind(error.msg)
