"""Everything that can go wrong in the overlay, by who is to blame."""

from __future__ import annotations

from nodes.wire import Code


class NodeError(Exception):
    """Base of all errors of the overlay; the text names the thing, the place and the way out."""


class NodeAbsent(NodeError):
    """The node's local socket is not there or nobody answers on it."""


class NodeLost(NodeError):
    """The connection to the local node ended while it was in use."""


class PortTaken(NodeError):
    """Another app listens on this port of this node."""


class Unreachable(NodeError):
    """No such node, no route to it, or no answer in time."""

    def __init__(self, message: str, code: Code = Code.NO_ROUTE) -> None:
        super().__init__(message)
        self.code = code


class StreamRefused(NodeError):
    """The app at the far end declined the stream; `code` and `reply` are its own."""

    def __init__(self, code: int, reply: bytes = b"") -> None:
        super().__init__(f"the far app refused the stream with its code {code}")
        self.code = code
        self.reply = reply


class StreamReset(NodeError):
    """The stream was cut; `code` says by what."""

    def __init__(self, code: Code, message: str = "") -> None:
        super().__init__(message or f"the stream was reset: {code.text}")
        self.code = code


class TunnelRefused(NodeError):
    """The node cannot use the device, a prefix is none or is another peer's; the text says which."""


class DatagramTooLarge(NodeError):
    """A datagram has more bytes than one may have."""


class CannotListen(NodeError):
    """An address or a local socket that this node needs is taken or cannot be made; says which."""
