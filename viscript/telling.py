"""What the daemon tells the command that has started it."""

from __future__ import annotations

import errno
import os

import msgspec

from bus.errors import BusError
from viscript.errors import Failed, ViscriptError
from viscript.protocol import Event


class Teller:
    """Writes events to the `up` that waits for them, as long as it listens."""

    def __init__(self, fd: int | None) -> None:
        self.fd = fd
        if fd is not None:
            os.set_blocking(fd, False)

    def tell(self, event: Event) -> None:
        if self.fd is None:
            return
        try:
            os.write(self.fd, msgspec.json.encode(event) + b"\n")
        except BlockingIOError:  # it does not keep up: it is not worth waiting for
            pass
        except OSError:
            os.close(self.fd)
            self.fd = None


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
