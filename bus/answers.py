"""A participant's handlers: who answers which request or signal, and what happens when one fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from time import perf_counter
from typing import Protocol

import msgspec

from bus import services, subjects, wire
from bus.errors import BusError, Refused
from bus.stream import Window
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
# takes a tenth off the round trip. An async generator function answers with a stream of its chunks.
RequestHandler = Callable[[Request], bytes | Awaitable[bytes] | AsyncGenerator[bytes, None]]
SignalHandler = Callable[[Message], Awaitable[None] | None]


class Reply(Protocol):
    """Queues a reply, or with `more` a chunk, by its handle; False when the request is over."""

    def __call__(
        self, handle: int, body: bytes, refused: Refused | None = None, *, more: bool = False
    ) -> bool: ...


class Endpoint:
    """One subject or pattern that is answered, and how it went."""

    __slots__ = (
        "description", "errors", "handler", "name", "pattern", "requests", "seconds", "version",
    )  # fmt: skip

    def __init__(
        self,
        pattern: str,
        handler: RequestHandler,
        name: str = "",
        version: str = "",
        description: str = "",
    ) -> None:
        self.pattern = pattern
        self.handler = handler
        self.name = name
        self.version = version
        self.description = description
        self.requests = self.errors = 0
        self.seconds = 0.0


class Answers:
    """Calls handlers and replies with what they return or raise.

    `reply` queues a reply by its handle; `write` lets what is queued leave, after a handler that took
    its time, `write_soon` at the end of the loop's turn; `room` waits while too much is queued.
    """

    def __init__(
        self,
        reply: Reply,
        write: Callable[[], None],
        write_soon: Callable[[], None],
        room: Callable[[], Awaitable[None]],
    ) -> None:
        self.services: dict[str, Endpoint] = {}  # by pattern, served through the broker
        self.direct: dict[str, Endpoint] = {}  # by subject, addressed to our key
        self.signals: dict[str, SignalHandler] = {}
        self.leaving = False  # nothing new is begun
        self._reply = reply
        self._write = write
        self._write_soon = write_soon
        self._room = room
        self._tasks: set[asyncio.Task[None]] = set()
        # By handle: streamed replies, which end when their requester does.
        self._streams: dict[int, tuple[Window, asyncio.Task[None]]] = {}

    async def close(self) -> None:
        """Cancel the handlers that still run."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def finish(self, timeout: float) -> None:
        """Wait until the handlers that run have answered, at most `timeout` seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    # Requests.

    def asked(self, asked: wire.RequestDelivery, body: bytes) -> None:
        """One request, or a batch; `RemoteProtocolError` for a body that is not what it announces."""
        endpoint = self._endpoint(asked)
        bodies = [body] if asked.n == 1 else wire.split(body, asked.n)
        for handle, inner in enumerate(bodies, asked.r):
            if self.leaving:
                refused = Refused(503, "draining", "this participant is leaving")
            elif endpoint is None:
                refused = Refused(404, "no_handler", f"this participant does not answer {asked.s}")
            elif len(self._tasks) >= MAX_HANDLERS:
                refused = Refused(429, "busy", "too many requests at once")
            else:
                request = Request(asked.s, asked.sender, inner, asked.dl / 1000)
                self._call(endpoint, handle, request, asked.stream)
                continue
            self._reply(handle, b"", refused)

    def granted(self, handle: int, chunks: int) -> None:
        """The requester takes more chunks of a streamed reply."""
        if handle in self._streams:
            self._streams[handle][0].grant(chunks)

    def cancelled(self, handle: int) -> None:
        """The requester takes no more; a handler with one reply is left to finish its work."""
        if handle in self._streams:
            self._streams[handle][1].cancel()

    def lost(self) -> None:
        """The connection is gone, and with it whoever took the streams."""
        for _, task in self._streams.values():
            task.cancel()

    def _endpoint(self, asked: wire.RequestDelivery) -> Endpoint | None:
        if asked.direct:
            return self.direct.get(asked.s)
        exact = self.services.get(asked.s)
        if exact is not None:
            return exact
        return next((e for p, e in self.services.items() if subjects.covers(p, asked.s)), None)

    def _call(self, endpoint: Endpoint, handle: int, request: Request, chunks: int) -> None:
        start = perf_counter()
        endpoint.requests += 1
        try:
            answer = endpoint.handler(request)
        except Exception as error:  # noqa: BLE001 - a handler's fault ends one request only
            self._failed(endpoint, handle, error)
            return
        if isinstance(answer, bytes):
            self._reply(handle, answer)
            endpoint.seconds += perf_counter() - start
        elif isinstance(answer, AsyncGenerator):
            self._start_stream(endpoint, handle, answer, start, chunks)
        else:
            self._spawn(self._answer(answer, handle, endpoint, start))

    async def _answer(
        self, answer: Awaitable[bytes], handle: int, endpoint: Endpoint, start: float
    ) -> None:
        try:
            self._reply(handle, await answer)
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(endpoint, handle, error)
        endpoint.seconds += perf_counter() - start
        self._write()

    def _start_stream(
        self,
        endpoint: Endpoint,
        handle: int,
        chunks: AsyncGenerator[bytes, None],
        start: float,
        granted: int,
    ) -> None:
        if not granted:
            problem = f"{endpoint.pattern} answers with a stream: ask for one"
            self._failed(endpoint, handle, Refused(400, "streamed", problem))
            return
        window = Window(granted)
        task = self._spawn(self._stream(chunks, handle, endpoint, window, start))
        self._streams[handle] = window, task
        task.add_done_callback(lambda _: self._streams.pop(handle, None))

    async def _stream(
        self,
        chunks: AsyncGenerator[bytes, None],
        handle: int,
        endpoint: Endpoint,
        window: Window,
        start: float,
    ) -> None:
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    await window.take()
                    await self._room()
                    if not self._reply(handle, chunk, more=True):
                        return  # too large: the requester has been told
                    self._write_soon()  # with the chunks that need not be waited for
            self._reply(handle, b"")
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(endpoint, handle, error)
        finally:
            endpoint.seconds += perf_counter() - start
            self._write()

    def _failed(self, endpoint: Endpoint, handle: int, error: Exception) -> None:
        endpoint.errors += 1
        self._reply(handle, b"", _refusal(error, endpoint.pattern))

    # Signals.

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

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Discovery.

    def offered(self, instance: str) -> list[services.Service]:
        """The named services, by name, with what their endpoints count."""
        named: dict[str, list[Endpoint]] = {}
        for endpoint in self.services.values():
            if endpoint.name:
                named.setdefault(endpoint.name, []).append(endpoint)
        return [
            services.Service(
                name, endpoints[0].version, endpoints[0].description, instance,
                [services.Endpoint(e.pattern, e.requests, e.errors, e.seconds) for e in endpoints],
                sum(e.requests for e in endpoints), sum(e.errors for e in endpoints),
                sum(e.seconds for e in endpoints),
            )
            for name, endpoints in named.items()
        ]  # fmt: skip


def _refusal(error: Exception, subject: str) -> Refused:
    """What the requester is told when a handler raised; details of our own faults stay here."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, BusError):
        return Refused(502, "failed", str(error))
    log.error("the handler of %s failed", subject, exc_info=error)
    return Refused(500, "internal", "the handler failed")
