"""What the engine needs of a link to a neighbour, and what a link tells the engine."""

from __future__ import annotations

from typing import Protocol


class Packet(Protocol):
    """A received frame; `buffer` is writable and belongs to the packet."""

    @property
    def buffer(self) -> memoryview: ...


class Account(Protocol):
    """Somebody for whom a link keeps bytes; `kept` says how many."""

    kept: int


class Link(Protocol):
    """One live connection to the neighbour whose key was proved to be `neighbour`.

    Sending never blocks and never fails: what the transport does not take at once is kept, `full`
    says so, and the owner is told when it is empty again. Whoever can wait looks at `full` first,
    so only control records and relayed frames pile up, which windows elsewhere bound.
    """

    @property
    def neighbour(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def full(self) -> bool: ...

    def send(self, data: bytes | memoryview) -> None:
        """Send a frame; the bytes are copied and `data` may be reused."""
        ...

    def forward(self, packet: Packet, account: Account) -> None:
        """Send a received frame on without a copy; what has to be kept is on `account`."""
        ...

    def cut(self, reason: str) -> None:
        """End the link; the owner hears `link_down`."""
        ...


class LinkOwner(Protocol):
    """Who is told; calls come from the event loop, never from inside a Link's own method."""

    def link_up(self, link: Link) -> None: ...

    def link_down(self, link: Link, reason: str) -> None: ...

    def received(self, link: Link, packet: Packet) -> None:
        """A frame came; raises WireError when the neighbour must be cut for it."""
        ...

    def writable(self, link: Link) -> None:
        """The link was full and is no longer."""
        ...
