"""What the daemon holds of a program in case its keeper is killed and it ends before it has another.

The output that nobody had read yet would be gone with the last descriptor of it, and the exit code with the
last of the process.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec

from viscript import descriptors
from viscript.keeping import kernel
from viscript.keeping.log import Log
from viscript.processes import Report


class Held:
    """Two descriptors of one program."""

    def __init__(self, folder: Path, report: Report, pidfd: int) -> None:
        self._folder = folder
        self._report = report
        self._pidfd = pidfd
        self._output = -1
        with suppress(OSError):  # it has a terminal
            flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
            self._output = os.open(folder / "output", flags)

    @classmethod
    def of(cls, folder: Path, report: Report) -> Self | None:
        """None when it has ended, or there are too many."""
        try:
            pidfd = os.pidfd_open(report.pid or 0)
        except OSError:
            return None
        found = kernel.process_stat(report.pid or 0)
        if pidfd > descriptors.can_be_spared() or found is None or found[3] != report.start_ticks:
            os.close(pidfd)
            return None
        return cls(folder, report, pidfd)

    def finish(self, report: Report) -> Report:
        """Do what its keeper could not do any more, once nothing of it is left; what has become of it.

        A code and a signal that are both None were told by nobody.
        """
        with suppress(OSError, ValueError, KeyError):
            self._write_rest()
        found = kernel.exit_of(report.pid or 0, self._report.start_ticks, self._pidfd)
        if found is None:
            return report
        code, number = found
        ended = msgspec.structs.replace(report, state="gone", code=code, signal=number)
        path = self._folder / "state.json"
        with suppress(OSError):
            temporary = path.with_suffix(".new")
            temporary.write_bytes(msgspec.json.encode(ended))
            temporary.replace(path)
        return ended

    def _write_rest(self) -> None:
        if self._output < 0:
            return
        spec = json.loads((self._folder / "spec.json").read_bytes())
        log = Log(spec["log"], spec["rule"])
        while log.take(self._output):
            pass
        log.close()

    def release(self) -> None:
        for fd in (self._pidfd, self._output):
            if fd >= 0:
                os.close(fd)
        self._pidfd = self._output = -1
