"""What a request to the manager must not contain, whatever it asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bus import Refused
from bus.identity import is_key
from nodes import api

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from bus import Request


def must_be_keys(texts: Iterable[str]) -> None:
    """What is no key would be shown to people; raises Refused."""
    if not all(map(is_key, texts)):
        raise Refused(400, "bad_body", "a node is named by 40 characters that are no key in Z85")


def guarded(
    handler: Callable[[Request], Awaitable[bytes]],
) -> Callable[[Request], Awaitable[bytes]]:
    async def handle(request: Request) -> bytes:
        try:
            return await handler(request)
        except api.BadBody as error:
            raise Refused(400, "bad_body", str(error)) from None

    return handle
