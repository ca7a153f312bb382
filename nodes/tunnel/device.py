"""A TUN device whose descriptor an app handed over (Linux, Documentation/networking/tuntap.rst)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING, Final

from nodes.tunnel.records import EVERYTHING, NOTHING, Takes
from nodes.tunnel.vnet import HEADER

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_TUNSETOFFLOAD: Final = 0x400454D0
_TUNGETIFF: Final = 0x800454D2
_TUNSETVNETHDRSZ: Final = 0x400454D8
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x1, 0x1000, 0x4000
_REQUEST: Final = struct.Struct("16sH22x")  # struct ifreq: name and flags
_FLAGS: Final = {
    Takes.CHECKSUM: 0x01,
    Takes.TCP: 0x02 | 0x04 | 0x08,  # TSO4, TSO6, TSO_ECN
    Takes.UDP: 0x20 | 0x40,  # USO4 and USO6, Linux 6.2
}


class NoDevice(Exception):
    """The descriptor is no TUN device that can be used, or the device is gone; the text says why."""


class Device:
    """See the module. Owns the descriptor."""

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop) -> None:
        """Raises NoDevice, and leaves the descriptor to the caller then."""
        try:
            answer = fcntl.ioctl(descriptor, _TUNGETIFF, bytes(_REQUEST.size))
            name, flags = _REQUEST.unpack(answer)
            needed = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
            if flags & (needed | 2) != needed:
                raise NoDevice("it must be opened with IFF_TUN, IFF_NO_PI and IFF_VNET_HDR")
            fcntl.ioctl(descriptor, _TUNSETVNETHDRSZ, struct.pack("i", HEADER.size))
            os.set_blocking(descriptor, False)
        except OSError as error:
            raise NoDevice(f"it is no TUN device ({error.strerror or error})") from None
        self.name = name.rstrip(b"\0").decode(errors="replace")
        self._descriptor = descriptor
        self._loop = loop
        self._watched = False

    def read(self, into: memoryview) -> int:
        """Bytes of header and packet that were put there; -1: nothing waits. Raises NoDevice."""
        try:
            return os.readv(self._descriptor, [into])
        except (BlockingIOError, InterruptedError):
            return -1
        except OSError as error:
            raise NoDevice(error.strerror or str(error)) from None

    def write(self, vnet: bytes, packet: memoryview) -> int:
        """Hand a packet to the kernel; 0, or the number of the error (errno)."""
        try:
            os.writev(self._descriptor, (vnet, packet))
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def give(self, wanted: Takes) -> Takes:
        """What `read` gives from now on: `wanted`, or less where the kernel cannot."""
        for takes in (wanted, wanted & ~Takes.UDP, NOTHING):
            if takes & ~Takes.CHECKSUM and Takes.CHECKSUM not in takes:
                continue  # the kernel wants it for the others
            flags = sum(flag for bit, flag in _FLAGS.items() if bit in takes)
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._descriptor, _TUNSETOFFLOAD, flags)
                return takes
        return NOTHING

    def can(self) -> Takes:
        """All that this kernel can give and take."""
        return self.give(EVERYTHING)

    def watch(self, readable: Callable[[], None]) -> None:
        """Have `readable` called while packets wait."""
        if not self._watched:
            self._watched = True
            self._loop.add_reader(self._descriptor, readable)

    def stop(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._descriptor)

    def close(self) -> None:
        self.stop()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
