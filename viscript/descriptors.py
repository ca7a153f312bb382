"""How many descriptors the daemon may have open: all that it is allowed, while programs get the usual number.

Many programs still count on the usual one: they close every number up to it, or wait with select(2).
"""

from __future__ import annotations

import contextlib
import resource

SPARE = 300  # of the daemon's descriptors, for what is more important than what it could do without
_usual: tuple[int, int] | None = None  # soft and hard limit as they were


def raise_limit() -> None:
    """From now on as many as this process may have."""
    global _usual  # noqa: PLW0603 - as the limit itself, one a process
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _usual = soft, hard


def lower_again(pid: int = 0) -> None:
    """As before `raise_limit`: for ourselves (0), or for a process that we have just begun."""
    if _usual is not None:
        with contextlib.suppress(ValueError, OSError):  # it has ended
            resource.prlimit(pid, resource.RLIMIT_NOFILE, _usual)


def can_be_spared() -> int:
    """Descriptors below this number are there for what is only useful."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(limit - SPARE, limit // 2)
