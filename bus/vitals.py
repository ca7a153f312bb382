"""What the broker's process looks like from inside: time, memory, open files, and how long it takes."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping

from bus.routing.watching import Vitals


class Pulse:
    """The longest turn of the loop in this window and the last, so that it shows for a while."""

    def __init__(self) -> None:
        self._now = 0.0  # longest of this window, seconds
        self._before = 0.0

    def took(self, seconds: float) -> None:
        """One turn has taken so long. Called at every turn, so it does next to nothing."""
        self._now = max(self._now, seconds)

    def tick(self) -> None:
        """Begin a new window; called every 10 s."""
        self._before, self._now = self._now, 0.0

    @property
    def longest(self) -> float:
        return max(self._now, self._before)


def read_vitals(
    start: float, pulse: Pulse, refused: Mapping[str, int], problems: tuple[str, ...]
) -> Vitals:
    """Look at this process now."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return Vitals(
        start=start, cpu_seconds=time.process_time(), rss=_resident(), fds=_open_files(),
        max_fds=0 if limit == resource.RLIM_INFINITY else limit, lag=pulse.longest,
        refused=dict(refused), problems=problems,
    )  # fmt: skip


def _resident() -> int:
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - half the cost of a Path
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _open_files() -> int:
    """Open files; since Linux 6.2 the folder's size tells, before it must be listed."""
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))  # noqa: PTH116, PTH208
