"""What can go wrong on the bus, named by whose fault it is; the message is what a user reads."""

from __future__ import annotations


class BusError(Exception):
    """Base of every error that the bus raises on purpose."""


class LocalProtocolError(BusError):
    """Our own side asked for something the protocol does not allow."""


class RemoteProtocolError(BusError):
    """The peer sent what SB/1 does not allow; `code` and `err` are the registered error."""

    def __init__(self, code: int, err: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.err = err


class KeyFileError(BusError):
    """A key file is missing, unreadable, open to others or not a key."""


class EndpointTaken(BusError):
    """Another program listens where we were to listen."""


class Unreachable(BusError):
    """The broker does not answer, is stopping, or the connection was lost: the outcome is unknown."""


class NotAuthorised(BusError):
    """The broker refuses this key, or this key may not do that."""


class NotPresent(BusError):
    """Nobody serves this subject, or the addressed key is not on the bus."""


class NoTopic(BusError):
    """No durable topic takes this subject in, or there is no topic or consumer of this name."""


class StoreFull(BusError):
    """The durable topic takes nothing more: its limit, or the broker's disk, is reached."""


class DeadlineExceeded(BusError):
    """No reply came before the deadline."""


class Overflow(BusError):
    """A bounded buffer is full: the broker is slower than we publish, or our reader than it delivers."""


class Refused(BusError):
    """The answering side refused; raised by a handler to refuse, and by `request` on the other end."""

    def __init__(self, code: int, err: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.err = err
