"""A participant's handlers: who answers which request or signal, and what happens when one fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine

import msgspec

from bus import subjects, wire
from bus.errors import BusError, Refused
from bus.subscription import Message

log = logging.getLogger(__name__)

MAX_HANDLERS = 256  # requests and signals handled at once; more are refused


class Request(msgspec.Struct, frozen=True):
    """What a request handler gets; `timeout` is the time left to answer, seconds."""

    subject: str
    sender: str
    body: bytes
    timeout: float


# A handler that has nothing to wait for may be a plain function: it is answered without a task, which
# takes a tenth off the round trip.
RequestHandler = Callable[[Request], bytes | Awaitable[bytes]]
SignalHandler = Callable[[Message], Awaitable[None] | None]


Reply = Callable[[int, bytes, Refused | None], None]


class Answers:
    """Calls handlers and replies with what they return or raise.

    `reply` queues a reply by its handle; `write` lets what is queued leave, after a handler that took
    its time.
    """

    def __init__(self, reply: Reply, write: Callable[[], None]) -> None:
        self.services: dict[str, RequestHandler] = {}  # by pattern, served through the broker
        self.direct: dict[str, RequestHandler] = {}  # by subject, addressed to our key
        self.signals: dict[str, SignalHandler] = {}
        self._reply = reply
        self._write = write
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Cancel the handlers that still run."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def asked(self, asked: wire.RequestDelivery, body: bytes) -> None:
        handler = self._handler(asked)
        if handler is None:
            refused = Refused(404, "no_handler", f"this participant does not answer {asked.s}")
            self._reply(asked.r, b"", refused)
        elif len(self._tasks) >= MAX_HANDLERS:
            self._reply(asked.r, b"", Refused(429, "busy", "too many requests at once"))
        else:
            self._call(handler, asked.r, Request(asked.s, asked.sender, body, asked.dl / 1000))

    def _call(self, handler: RequestHandler, handle: int, request: Request) -> None:
        try:
            answer = handler(request)
        except Exception as error:  # noqa: BLE001 - a handler's fault ends one request only
            self._reply(handle, b"", _refusal(error, request.subject))
            return
        if isinstance(answer, bytes):
            self._reply(handle, answer, None)
        else:
            self._spawn(self._answer(answer, handle, request.subject))

    def _handler(self, asked: wire.RequestDelivery) -> RequestHandler | None:
        if asked.direct:
            return self.direct.get(asked.s)
        exact = self.services.get(asked.s)
        if exact is not None:
            return exact
        return next((h for p, h in self.services.items() if subjects.covers(p, asked.s)), None)

    async def _answer(self, answer: Awaitable[bytes], handle: int, subject: str) -> None:
        try:
            self._reply(handle, await answer, None)
        except Exception as error:  # noqa: BLE001 - as above
            self._reply(handle, b"", _refusal(error, subject))
        self._write()

    def signalled(self, message: Message) -> None:
        handler = self.signals.get(message.subject)
        if handler is None or len(self._tasks) >= MAX_HANDLERS:
            return
        try:
            work = handler(message)
        except Exception:
            log.exception("the handler of the signal %s failed", message.subject)
            return
        if work is not None:
            self._spawn(self._hand_over(work, message.subject))

    async def _hand_over(self, work: Awaitable[None], subject: str) -> None:
        try:
            await work
        except Exception:
            log.exception("the handler of the signal %s failed", subject)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _refusal(error: Exception, subject: str) -> Refused:
    """What the requester is told when a handler raised; details of our own faults stay here."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, BusError):
        return Refused(502, "failed", str(error))
    log.error("the handler of %s failed", subject, exc_info=error)
    return Refused(500, "internal", "the handler failed")
