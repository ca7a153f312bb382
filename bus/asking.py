"""Requests and signals as a participant sends them: one answer, a stream of chunks, everybody's answers."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import suppress

import msgspec

from bus import services
from bus.calls import Calls
from bus.errors import BusError, DeadlineExceeded, LocalProtocolError, NotPresent
from bus.sending import check_subject


class Answer(msgspec.Struct, frozen=True):
    """One of the answers that `gather` collects; `sender` is the proved key."""

    sender: str
    body: bytes
    error: BusError | None = None


class Asking:
    """The part of `Bus` that asks others."""

    _calls: Calls

    async def request(
        self,
        subject: str,
        body: bytes = b"",
        *,
        to: str | None = None,
        timeout: float = 5.0,
        idempotent: bool = False,
    ) -> bytes:
        """Ask who serves `subject`, or the participant `to`, and return the answer's body.

        Raises `NotPresent` at once when there is nobody, `NotAuthorised`, `DeadlineExceeded`, `Refused` with
        the answerer's own error, or `Unreachable` when the connection was lost and nobody knows.

        An idempotent request may be carried out more than once. It is asked again by itself, until its
        deadline, when the connection is lost or the answerer leaves, and then gets the answer that the
        first one got, if the broker still has it.
        """
        check_subject(subject)
        calls = self._calls
        idem = os.urandom(16).hex() if idempotent else ""
        ref = self._calls.session.request(subject, body, to, timeout, calls.now, idem=idem)
        return (await calls.result(ref, timeout)).body

    async def stream(
        self,
        subject: str,
        body: bytes = b"",
        *,
        to: str | None = None,
        timeout: float = 60.0,
        window: int = 16,
    ) -> AsyncGenerator[bytes, None]:
        """Ask for a streamed reply and yield its chunks; errors as `request`, after what came before.

        The answerer is at most `window` (1 to 64) chunks ahead. `timeout` is for the whole of it. Leaving the
        iteration (or `aclose`) tells the answerer to stop.
        """
        check_subject(subject)
        if window < 1:
            raise LocalProtocolError(f"stream {subject}: a window of {window} chunks, at least 1")
        ref = self._calls.session.stream(subject, body, to, timeout, window, self._calls.now)
        with self._calls.replies(ref, timeout) as replies:
            taken = 0
            while (part := await replies.next()) is not None:
                yield part.body
                taken += 1
                if 2 * taken >= window:  # the reader is done with these
                    self._calls.session.grant(taken, ref=ref)
                    self._calls.write()
                    taken = 0

    async def gather(
        self, subject: str, body: bytes = b"", *, timeout: float = 2.0
    ) -> AsyncGenerator[Answer, None]:
        """Ask everybody who serves `subject` and yield the answers as they come.

        Ends when all have answered or left, or at the time-out; `NotPresent` when there is nobody.
        """
        check_subject(subject)
        ref = self._calls.session.gather(subject, body, timeout, self._calls.now)
        with self._calls.replies(ref, timeout) as replies, suppress(DeadlineExceeded):
            while (part := await replies.next()) is not None:
                yield Answer(part.sender, part.body, part.error)

    async def discover(self, *, timeout: float = 1.0) -> list[services.Service]:
        """The services that are on offer, as those who offer them tell, with how they went."""
        found = []
        with suppress(NotPresent):
            async for answer in self.gather(services.INFO, timeout=timeout):
                found += services.unpack(answer.body, answer.sender)
        return found

    async def signal(
        self, to: str, subject: str, body: bytes = b"", *, timeout: float = 5.0
    ) -> None:
        """Send one way to the participant `to`; returns when the broker has it. `NotPresent`."""
        check_subject(subject)
        ref = self._calls.session.signal(to, subject, body, timeout, self._calls.now)
        await self._calls.result(ref, timeout)
