"""The keys of one session: what seals now, what opens, and when one epoch follows another.

What is sealed under keys that the peer may not have taken could never be opened, also not when it is
sent again under later ones. So new keys seal what must arrive only when the peer has used them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nodes.sealing import TAG
from nodes.wire import DATAGRAM_LANE

if TYPE_CHECKING:
    from nodes.keying import Agreed
    from nodes.sealing import Seal

OLD_KEYS_FOR: Final = 60.0  # s in which frames under the keys before are still taken


class Keyring:
    """See the module. `out` and `epoch` are for what must arrive; `out` is None without a session."""

    def __init__(self) -> None:
        self.out: Seal | None = None
        self.epoch = 0
        self.into: dict[int, Seal] = {}  # by epoch
        self.sealed = 0  # bytes since the last keys were agreed on
        self.told = 0  # counter of the datagram lane
        self._old: list[tuple[int, float]] = []  # epochs before, and until when they are taken
        self._next: tuple[int, Seal] | None = None  # ours, until the peer has used that epoch too

    def begin(self, agreed: Agreed) -> None:
        """The first keys of a session."""
        self.clear()
        self.out, self.into[agreed.epoch] = agreed.seals()
        self.epoch, self.told = agreed.epoch, 0

    def follow(self, agreed: Agreed, now: float) -> None:
        """New keys in a session that goes on; `promote` when the peer has used them."""
        out, into = agreed.seals()
        if self._next is not None:
            self._old.append((self._next[0], now + OLD_KEYS_FOR))
        self._old = [(epoch, until) for epoch, until in self._old if epoch != agreed.epoch]
        self._next = (agreed.epoch, out)
        self.into[agreed.epoch] = into
        self.sealed = 0

    def came(self, epoch: int, now: float) -> bool:
        """A frame of this epoch opened; whether that shows that the peer has the newest keys."""
        if self._next is None or epoch != self._next[0]:
            return False
        self._old.append((self.epoch, now + OLD_KEYS_FOR))
        self.epoch, self.out = self._next
        self._next = None
        return True

    def tell(self, first: int, record: bytes | memoryview) -> tuple[int, int, bytearray]:
        """Epoch, counter and bytes of a sealed record that may be lost, under the newest keys of all."""
        epoch, seal = self._next or (self.epoch, self.out)
        assert seal is not None  # noqa: S101 - a session is up
        self.told += 1
        data = bytearray(len(record) + TAG)
        seal.seal(first, DATAGRAM_LANE, epoch, self.told, record, data)
        self.sealed += len(record)
        return epoch, self.told, data

    def expire(self, now: float) -> None:
        while self._old and now >= self._old[0][1]:
            self.into.pop(self._old.pop(0)[0], None)

    def clear(self) -> None:
        self.out = self._next = None
        self.into.clear()
        self._old.clear()
        self.sealed = 0
