"""Handlers: one answer to every request, whatever they do."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from bus import wire
from bus.answers import MAX_HANDLERS, Answers, Endpoint, Request, RequestHandler
from bus.errors import NotPresent, Refused
from bus.subscription import Message

KEY = "k" * 40


class Desk:
    """Answers, and what they reply: (handle, body or the name of a refusal, more)."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, object, bool]] = []
        self.answers = Answers(self.reply, lambda: None, lambda: None, self.room)
        self.too_large = b"too large"

    def reply(
        self, handle: int, body: bytes, refused: Refused | None = None, *, more: bool = False
    ) -> bool:
        if not isinstance(body, bytes):
            raise TypeError  # as the session does
        if body == self.too_large:
            refused = Refused(413, "too_large", "")
        self.replies.append((handle, refused.err if refused else body, more and not refused))
        return more and not refused

    async def room(self) -> None:
        await asyncio.sleep(0)

    def serves(self, pattern: str, handler: RequestHandler) -> None:
        self.answers.services[pattern] = Endpoint(pattern, handler)

    def asks(self, handle: int, subject: str = "app.x", body: bytes = b"", stream: int = 0) -> None:
        self.answers.asked(wire.RequestDelivery(handle, subject, KEY, 1500, stream=stream), body)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)


def raises(error: Exception) -> RequestHandler:
    def handler(_request: Request) -> bytes:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Refused(409, "conflict", "x"), "conflict"), (NotPresent("y"), "failed"),
        (ValueError("secret"), "internal"),
    ],
)  # fmt: skip
async def test_what_a_handler_raises_refuses_its_request(error: Exception, told: str) -> None:
    desk = Desk()
    desk.serves("app.x", raises(error))
    desk.asks(1)
    assert desk.replies == [(1, told, False)]


async def test_the_exact_subject_comes_before_a_pattern_and_nobody_is_told_so() -> None:
    desk = Desk()
    desk.serves("app.>", lambda _: b"pattern")
    desk.serves("app.x", lambda _: b"exact")
    for handle, subject in enumerate(("app.x", "app.y", "other")):
        desk.asks(handle, subject)
    assert [told for _, told, _ in desk.replies] == [b"exact", b"pattern", "no_handler"]


@pytest.mark.parametrize("answer", [None, "text", 7])
async def test_an_answer_that_is_no_bytes_is_our_fault(answer: object) -> None:
    async def later(_request: Request) -> object:
        return answer

    async def chunks(_request: Request) -> AsyncIterator[object]:
        yield answer

    desk = Desk()
    handlers = (lambda _: answer, later, chunks)
    for handle, handler in enumerate(handlers):
        desk.serves("app.x", handler)  # type: ignore[arg-type]
        desk.asks(handle, stream=1)
        await desk.until(lambda: not desk.answers._tasks)
    assert desk.replies == [(handle, "internal", False) for handle in range(3)]


async def test_handlers_at_once_are_bounded() -> None:
    go = asyncio.Event()

    async def waits(_request: Request) -> bytes:
        await go.wait()
        return b"done"

    desk = Desk()
    desk.serves("app.x", waits)
    for handle in range(MAX_HANDLERS + 1):
        desk.asks(handle)
    assert desk.replies == [(MAX_HANDLERS, "busy", False)]
    go.set()
    await desk.until(lambda: len(desk.replies) == MAX_HANDLERS + 1)
    desk.asks(999)
    await desk.until(lambda: desk.replies[-1] == (999, b"done", False))


async def test_who_leaves_begins_nothing_and_finishes_what_runs() -> None:
    async def slow(_request: Request) -> bytes:
        await asyncio.sleep(0.05)
        return b"done"

    desk = Desk()
    desk.serves("app.x", slow)
    desk.asks(1)
    await asyncio.sleep(0)
    desk.answers.leaving = True
    desk.asks(2)
    await desk.answers.finish(5)
    assert desk.replies == [(2, "draining", False), (1, b"done", False)]


# Streams.


class Counting:
    """A stream without an end, which knows how far it is."""

    def __init__(self) -> None:
        self.made = 0
        self.closed = False

    async def handler(self, _request: Request) -> AsyncIterator[bytes]:
        try:
            while True:
                self.made += 1
                yield b"%d" % self.made
        finally:
            self.closed = True


async def test_a_stream_stays_within_its_window_and_ends_when_cancelled() -> None:
    desk, counting = Desk(), Counting()
    desk.serves("app.x", counting.handler)
    desk.asks(1, stream=2)
    await desk.until(lambda: counting.made == 3)
    await asyncio.sleep(0.01)
    assert desk.replies == [(1, b"1", True), (1, b"2", True)]
    desk.answers.granted(1, 2)
    desk.answers.granted(7, 2)  # of nobody
    await desk.until(lambda: len(desk.replies) == 4)
    desk.answers.cancelled(1)
    desk.answers.cancelled(7)
    await desk.until(lambda: counting.closed)
    await asyncio.sleep(0.01)
    assert len(desk.replies) == 4
    assert not desk.answers._streams


async def test_streams_end_with_their_connection_and_plain_handlers_do_not() -> None:
    desk, counting = Desk(), Counting()

    async def slow(_request: Request) -> bytes:
        await asyncio.sleep(0.05)
        return b"done"

    desk.serves("app.stream", counting.handler)
    desk.serves("app.slow", slow)
    desk.asks(1, "app.stream", stream=1)
    desk.asks(2, "app.slow")
    await desk.until(lambda: counting.made == 2)
    desk.answers.lost()
    desk.answers.cancelled(2)
    await desk.until(lambda: counting.closed)
    await desk.until(lambda: (2, b"done", False) in desk.replies)


async def test_a_chunk_that_is_too_large_ends_its_stream() -> None:
    desk = Desk()

    async def large(_request: Request) -> AsyncIterator[bytes]:
        yield b"1"
        yield desk.too_large
        yield b"3"

    desk.serves("app.x", large)
    desk.asks(1, stream=8)
    await desk.until(lambda: not desk.answers._streams)
    assert desk.replies == [(1, b"1", True), (1, "too_large", False)]


async def test_closing_cancels_what_runs() -> None:
    desk, counting = Desk(), Counting()
    desk.serves("app.x", counting.handler)
    desk.asks(1, stream=1)
    await desk.until(lambda: counting.made)
    await desk.answers.close()
    assert counting.closed


# Signals and discovery.


async def test_a_signal_handler_that_fails_harms_nobody() -> None:
    heard: list[Message] = []

    def fails(message: Message) -> None:
        heard.append(message)
        raise ValueError

    async def fails_later(message: Message) -> None:
        fails(message)

    desk = Desk()
    desk.answers.signals["app.now"] = fails
    desk.answers.signals["app.later"] = fails_later
    for subject in ("app.now", "app.later", "app.unknown"):
        desk.answers.signalled(Message(subject, KEY, b""))
    await desk.until(lambda: not desk.answers._tasks)
    assert [m.subject for m in heard] == ["app.now", "app.later"]


async def test_what_is_offered_is_told_by_name_with_its_figures() -> None:
    desk = Desk()
    served = desk.answers.services
    served["app.a"] = Endpoint("app.a", lambda _: b"", "clock", "1", "time")
    served["app.b"] = Endpoint("app.b", raises(ValueError()), "clock", "1", "time")
    desk.serves("app.c", lambda _: b"")
    desk.asks(1, "app.a")
    desk.asks(2, "app.b")
    [clock] = desk.answers.offered("id")
    assert (clock.name, clock.version, clock.description, clock.id) == ("clock", "1", "time", "id")
    assert (clock.requests, clock.errors) == (2, 1)
    assert [(e.subject, e.requests, e.errors) for e in clock.endpoints] == [
        ("app.a", 1, 0),
        ("app.b", 1, 1),
    ]
