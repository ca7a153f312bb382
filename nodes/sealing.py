"""Sealing and opening the frames of a session, and what a replay is.

One `Seal` is one key: of one session, direction and epoch. The nonce is `u32 lane | u64 counter`, so a
counter must never be used twice in a lane; the rest of what a relay may not change is bound as associated
data: `u8 version and type | u8 lane | u8 epoch | u64 counter | u64 session`. Label and ttl are the
relays' own. The layout is specified in docs/protocol/mesh.md, section 3.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

TAG: Final = 16  # bytes that sealing adds
WINDOW: Final = 2048  # counters back that a replay window remembers
_NONCE: Final = struct.Struct(">IQ").pack
_BOUND: Final = struct.Struct(">BBBQQ").pack
_LAST: Final = (1 << 64) - 1


class Cipher(StrEnum):
    """How frames are sealed; the names go over the wire."""

    AES = "aes-256-gcm"
    CHACHA = "chacha20-poly1305"


CIPHERS: Final = frozenset(Cipher)


def preferred(flags: frozenset[str]) -> list[Cipher]:
    """Ciphers, fastest first, for a CPU with these flags (of /proc/cpuinfo)."""
    fast = bool(flags & {"aes", "vaes"})
    return [Cipher.AES, Cipher.CHACHA] if fast else [Cipher.CHACHA, Cipher.AES]


class Seal:
    """One direction of one epoch of a session."""

    __slots__ = ("_cipher", "_session")

    def __init__(self, cipher: Cipher, key: bytes, session: int) -> None:
        self._cipher = AESGCM(key) if cipher is Cipher.AES else ChaCha20Poly1305(key)
        self._session = session

    def seal(
        self,
        first: int,
        lane: int,
        epoch: int,
        counter: int,
        plain: bytes | memoryview,
        into: bytearray | memoryview,
    ) -> None:
        """Seal `plain` into `into`, which has room for it and the tag exactly."""
        self._cipher.encrypt_into(
            _NONCE(lane, counter), plain, _BOUND(first, lane, epoch, counter, self._session), into
        )

    def open(
        self,
        first: int,
        lane: int,
        epoch: int,
        counter: int,
        sealed: memoryview,
        into: memoryview,
    ) -> bool:
        """Open `sealed` into `into`, which is `TAG` shorter; whether it is what the peer sealed."""
        try:
            self._cipher.decrypt_into(
                _NONCE(lane, counter),
                sealed,
                _BOUND(first, lane, epoch, counter, self._session),
                into,
            )
        except InvalidTag:
            return False
        return True


class ReplayWindow:
    """Which counters of an unordered lane have come; those far behind the newest count as come."""

    __slots__ = ("_newest", "_seen")

    def __init__(self) -> None:
        self._newest = 0
        self._seen = 0  # bit n: newest - n has come

    def is_new(self, counter: int) -> bool:
        """Whether a frame with this counter may be opened at all."""
        behind = self._newest - counter
        return counter > 0 and (behind < 0 or (behind < WINDOW and not self._seen >> behind & 1))

    def came(self, counter: int) -> None:
        """The frame opened: remember it. Before that a forger could move the window."""
        ahead = counter - self._newest
        if ahead > 0:
            self._seen = (self._seen << ahead | 1) & ((1 << WINDOW) - 1) if ahead < WINDOW else 1
            self._newest = counter
        else:
            self._seen |= 1 << -ahead
