"""What the two halves of the SOCKS pair say to each other when a stream is opened."""

from typing import Annotated

import msgspec

from apps.socks.protocol import Reply

PORT = 3  # the mesh port where an exit listens unless told otherwise


class Destination(msgspec.Struct, frozen=True):
    """Greeting of a stream: where the exit is to dial."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Refusal(msgspec.Struct, frozen=True):
    """Reply of an exit that did not dial, or in vain."""

    code: Reply
    reason: str  # for the log of the near side


def encode(message: Destination | Refusal) -> bytes:
    return msgspec.msgpack.encode(message)


def read_destination(greeting: bytes) -> Destination | None:
    """Read a greeting; None for one that is none."""
    try:
        return msgspec.msgpack.decode(greeting, type=Destination)
    except (msgspec.MsgspecError, RecursionError):
        return None


def read_refusal(body: bytes) -> Refusal:
    """Read why the exit refused; anything unreadable is a general failure."""
    try:
        refusal = msgspec.msgpack.decode(body, type=Refusal)
    except (msgspec.MsgspecError, RecursionError):
        return Refusal(Reply.GENERAL, "the exit gave no reason")
    # Success cannot be a refusal: the client would take the end of the stream for the stream.
    code = Reply.GENERAL if refusal.code is Reply.SUCCEEDED else refusal.code
    return Refusal(code, refusal.reason[:200])
