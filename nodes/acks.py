"""Records on the datagram lane that are about the session itself, bytes to values and back.

Specified in docs/protocol/mesh.md, section 4.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from nodes.wire import DATA_LANES, WireError

LANES: Final = DATA_LANES + 1  # lane 0 is urgent, 1 to 4 carry streams
MICROS: Final = 0xFFFFFFFF  # times are µs of a clock of the sender's own, modulo 2^32; 0 is none
# kind, flags, missing lanes, own time, the peer's time, µs since that came, next counter of each lane
_ACK: Final = struct.Struct(f">BBHIII{LANES}Q")


class Told(IntEnum):
    """First byte of a record on the datagram lane."""

    ACK = 1
    BYE = 2  # the session is over; a code follows
    DATAGRAM = 3
    PING = 4  # a number follows; answered with PONG and the same
    PONG = 5


class Flag(IntEnum):
    SUSPECT = 1  # what comes on the route you use does not open


class Ack(NamedTuple):
    """What came, and a time to measure by."""

    flags: int
    missing: int  # bit n: send lane n again from its next counter on
    stamp: int  # the sender's time
    echo: int  # the newest time that it had of the receiver
    held: int  # µs between having that and sending this
    expected: tuple[int, ...]  # the next counter of each lane

    def pack(self) -> bytes:
        flags, missing, stamp, echo, held, expected = self
        return _ACK.pack(Told.ACK, flags, missing, stamp, echo, min(held, MICROS), *expected)


def parse_ack(record: memoryview) -> Ack:
    """Raises WireError. Longer ones are of a later version and begin the same."""
    if len(record) < _ACK.size:
        raise WireError(f"acknowledgement of {len(record)} bytes, it has {_ACK.size}")
    _, flags, missing, stamp, echo, held, *expected = _ACK.unpack_from(record)
    return Ack(flags, missing, stamp, echo, held, tuple(expected))


def micros(now: float) -> int:
    """A time in seconds as it stands in an Ack; never 0, which is none."""
    return int(now * 1e6) & MICROS or 1


def since(now: float, stamp: int) -> float:
    """Seconds from `stamp` to `now`; negative when `stamp` is of the future."""
    ago = (micros(now) - stamp) & MICROS
    return (ago if ago <= MICROS >> 1 else ago - MICROS - 1) / 1e6


def is_later(stamp: int, other: int) -> bool:
    """Whether one time of a clock comes after another of the same, at most half an hour."""
    return 0 < (stamp - other) & MICROS <= MICROS >> 1
