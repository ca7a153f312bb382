"""What the engine needs of a link to a neighbour, and what a link tells the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Packet(Protocol):
    """A received frame: the fields of its head and its payload.

    It is valid during the call that hands it over, for its buffer is used again: who wants it for
    longer calls `keep`. The payload may be written to.
    """

    @property
    def type(self) -> int: ...

    @property
    def lane(self) -> int: ...

    @property
    def epoch(self) -> int: ...

    @property
    def ttl(self) -> int: ...

    @property
    def label(self) -> int: ...

    @property
    def counter(self) -> int: ...

    @property
    def payload(self) -> memoryview: ...

    def keep(self) -> Packet:
        """The packet with a payload of its own; copied only where the buffer is the link's."""
        ...


class Account(Protocol):
    """Somebody for whom a link keeps bytes; `kept` says how many."""

    kept: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a link has measured. Times in seconds; None where nothing is known yet."""

    rtt: float | None = None  # the shortest of late, of PINGs between the two nodes
    rttvar: float = 0.0
    retransmits: float = 0.0  # TCP segments sent again, a second
    bytes_in: int = 0  # since the link came up, frames with their heads
    bytes_out: int = 0
    rate: float | None = None  # bytes a second that the link is believed to carry
    queued: int = 0  # bytes accepted for sending and not sent


class Link(Protocol):
    """One live link to the neighbour whose key was proved to be `neighbour`.

    Sending never blocks and never fails: what the transport does not take at once is kept, `full`
    says so, and the owner is told when it is empty again. Whoever can wait looks at `full` first,
    so only control frames and relayed frames pile up, which windows elsewhere bound.

    A link has several connections. Frames of the same label and lane travel on the same one, and
    arrive in the order of sending; between others there is no order.
    """

    @property
    def neighbour(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def alive(self) -> bool: ...

    def connection(self, label: int, lane: int) -> int:
        """The number of the connection that carries DATA frames of `label` and `lane`."""
        ...

    def full(self, label: int, lane: int) -> bool:
        """Whether a DATA frame of `label` and `lane` would have to wait; a datagram: too long."""
        ...

    def room(self, head: bytes) -> int:
        """Bytes that the connection for a frame with this head keeps until the link must be cut."""
        ...

    def send(self, head: bytes, payload: bytes | bytearray | memoryview = b"") -> None:
        """Send a frame; what has to be kept is copied, `payload` may be reused at once."""
        ...

    def forward(self, head: bytes, packet: Packet, account: Account) -> None:
        """Send a received frame on under a new head; what has to be kept is on `account`."""
        ...

    def metrics(self) -> Metrics: ...

    def cut(self, reason: str) -> None:
        """End the link; the owner hears `link_down`."""
        ...


class LinkOwner(Protocol):
    """Who is told; calls come from the event loop, never from inside a Link's own method."""

    def link_up(self, link: Link) -> None: ...

    def link_down(self, link: Link, reason: str) -> None: ...

    def received(self, link: Link, packet: Packet) -> None:
        """A frame came that is not the link's own affair (HELLO, ALIVE, PING, PONG).

        Raises WireError when the neighbour must be cut for it.
        """
        ...

    def writable(self, link: Link, connection: int) -> None:
        """The connection with this number (`Link.connection`) was full and is no longer."""
        ...
