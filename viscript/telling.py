"""What the daemon tells the command that has started it."""

from __future__ import annotations

import os

import msgspec

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
