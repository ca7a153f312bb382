"""What the two halves of the SOCKS pair say to each other when a stream is opened.

The greeting of a stream to the exit is one of three, told apart by `kind`. Answered by `attach` (TCP) or by
`Associated` (UDP), or refused with a `Refusal`.

For UDP the stream carries no bytes: it is the life of the association. The datagrams travel beside it
(`apps.socks.packets`), from the datagram port that the client named to the one that the exit named. When
the stream ends, by either end, the association is over.
"""

from typing import Annotated, Final

import msgspec

from apps.socks.protocol import Reply

PORT: Final = 3  # the mesh port where an exit listens unless told otherwise
OFFER: Final = "socks"  # as what the tracker lists an exit

# Labels of an exit's offer, beside the `node` that all have.
LABEL_LOAD: Final = "load"  # "0" to "100": per cent of what it can take is taken
LABEL_ACCESS: Final = "access"  # "all", or "keys": only nodes that it was told of
LABEL_UDP: Final = "udp"  # "yes" or "no"

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Destination(msgspec.Struct, frozen=True, tag_field="kind", tag="tcp"):
    """Greeting of a stream: where the exit is to dial."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    port: Port


class Association(msgspec.Struct, frozen=True, tag_field="kind", tag="udp"):
    """Greeting of a stream: the exit is to send datagrams of this number, from this port of ours.

    The number is the near side's, for as many associations as it likes over one port; the exit knows
    an association by the node's key, the port and the number.
    """

    number: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]  # bound at the near node


class Probe(msgspec.Struct, frozen=True, tag_field="kind", tag="probe"):
    """Greeting of a stream that the exit refuses: whether it is there, and how far away."""


class Associated(msgspec.Struct, frozen=True):
    """Reply of an exit that took an association: its datagram port on the mesh."""

    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Refusal(msgspec.Struct, frozen=True):
    """Reply of an exit that did not dial, or in vain."""

    code: Reply
    reason: str  # for the log of the near side


Greeting = Destination | Association | Probe

_greetings: Final[msgspec.msgpack.Decoder[Greeting]] = msgspec.msgpack.Decoder(Greeting)


def encode(message: Greeting | Associated | Refusal) -> bytes:
    return msgspec.msgpack.encode(message)


PROBE: Final = encode(Probe())


def read_greeting(greeting: bytes) -> Greeting | None:
    """Read a greeting; None for one that is none."""
    try:
        return _greetings.decode(greeting)
    except (msgspec.MsgspecError, RecursionError):
        return None


def read_associated(reply: bytes) -> Associated | None:
    """Read what an exit answered to an `Association`; None for what is no answer to it."""
    try:
        return msgspec.msgpack.decode(reply, type=Associated)
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
