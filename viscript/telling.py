"""What the daemon tells the command that has started it."""

from __future__ import annotations

import asyncio
import errno
import os

import msgspec

from bus.errors import BusError
from viscript.errors import Failed, ViscriptError
from viscript.protocol import Event

MAX_LEFT = 1 << 20  # bytes


class Teller:
    """Writes events to the `up` that waits for them, while it listens; keeps what it does not take yet."""

    def __init__(self, fd: int | None) -> None:
        self.fd = fd
        self._left = bytearray()
        if fd is not None:
            os.set_blocking(fd, False)

    def tell(self, event: Event) -> None:
        if self.fd is None:
            return
        if len(self._left) > MAX_LEFT and event.kind == "launch":  # what counts is still told
            return
        self._left += msgspec.json.encode(event) + b"\n"
        self._write(self.fd)

    def _write(self, fd: int) -> None:
        try:
            del self._left[: os.write(fd, self._left)]
        except BlockingIOError:
            pass
        except OSError:  # it listens no more
            self._left.clear()
            self.fd = None
        self._go_on_later(fd)
        if self.fd is None:
            os.close(fd)

    def _go_on_later(self, fd: int) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # just before the end, or the beginning
            return
        if self._left:
            loop.add_writer(fd, self._write, fd)
        else:
            loop.remove_writer(fd)


def cause(raised: Exception) -> ViscriptError:
    """The one reason in the task groups' nest; a bug goes on up."""
    error = raised
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    match error:
        case ViscriptError():
            return error
        case BusError():
            return Failed(str(error))
        case OSError() if error.filename is not None or error.errno == errno.ENOSPC:
            place = f"{error.filename or 'the home'}: {error.strerror}"
            return Failed(f"{place}; see what is wrong: viscript doctor")
        case _:
            raise raised
