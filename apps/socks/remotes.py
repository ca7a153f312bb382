"""Who may answer an association of datagrams, and how much: whom it has sent to, for what it has sent.

The filter of a NAT that looks at address and port (RFC 4787 section 5, the strictest): nothing comes back
from where nothing was sent, so nobody finds an open door in an exit's port, and no reply can be had before a
question. Each datagram that goes out lets so many bytes come back from there: a place that was asked once
cannot send for ever, and who listens to a fast download says so often enough.
"""

from dataclasses import dataclass
from typing import Final

MAX_REMOTES: Final = 512  # of one association; the one sent to longest ago goes
FORGET: Final = 180.0  # seconds after the last datagram to it (RFC 4787: at least 120)
GRANT: Final = 1 << 20  # bytes that each datagram sent lets come back
MOST: Final = 8 << 20  # bytes that may be outstanding

Place = tuple[str, int]  # address and port


@dataclass(slots=True)
class _Remote:
    sent: float  # when
    left: int  # bytes that may come back


class Remotes:
    """The places one association has sent to."""

    def __init__(self) -> None:
        self._places: dict[Place, _Remote] = {}

    def __len__(self) -> int:
        return len(self._places)

    def sent(self, place: Place, now: float) -> None:
        """A datagram goes there."""
        remote = self._places.pop(place, None)
        if remote is None or now >= remote.sent + FORGET:
            remote = _Remote(now, 0)
            while len(self._places) >= MAX_REMOTES:
                del self._places[next(iter(self._places))]
        remote.sent = now
        remote.left = min(MOST, remote.left + GRANT)
        self._places[place] = remote

    def may_return(self, place: Place, size: int, now: float) -> bool:
        """Whether a datagram of so many bytes that came from there is passed on."""
        remote = self._places.get(place)
        if remote is None or now >= remote.sent + FORGET or size > remote.left:
            return False
        remote.left -= size
        return True
