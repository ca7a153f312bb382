"""Reading the lists that a broker tells page by page, to their end."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Protocol, TypeVar

from msgspec.structs import replace

from bus import signals

if TYPE_CHECKING:
    from typing import Any, ClassVar

L = TypeVar("L", bound="Listed")


class Listed(Protocol):
    """Topics, Consumers, Services, AccessEntries, ClosedSessions: a list, and where the next page begins."""

    __struct_fields__: ClassVar[tuple[str, ...]]

    @property
    def next(self) -> str: ...


def pages(kind: type[L], query: signals.PageQuery) -> Generator[bytes, bytes, L]:
    """Give the body of each request, take that of its answer; the result is all pages in one. `Refused`."""
    # The first one of all is asked for without a word, which brokers that know no pages understand too.
    answer = yield b"" if query == type(query)() else signals.pack(query)
    found = signals.unpack(answer, kind)
    items: list[Any] = list(getattr(found, kind.__struct_fields__[0]))
    while found.next:
        answer = yield signals.pack(replace(query, after=found.next))
        found = signals.unpack(answer, kind)
        items += getattr(found, kind.__struct_fields__[0])
    return kind(items)  # type: ignore[call-arg]


class Bus(Protocol):
    async def request(self, subject: str, body: bytes = b"") -> bytes: ...


async def everything(
    bus: Bus, subject: str, kind: type[L], query: signals.PageQuery | None = None
) -> L:
    """The whole list; errors as `Bus.request`."""
    asking = pages(kind, query or signals.PageQuery())
    body = next(asking)
    while True:
        answer = await bus.request(subject, body)
        try:
            body = asking.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
