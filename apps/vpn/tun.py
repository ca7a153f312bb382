"""A TUN device: opened here, read and written by the node (`nodes.client.Node.tunnel`). Linux.

The device lasts as long as one descriptor of it is open anywhere.
"""

import contextlib
import fcntl
import os
import struct
from typing import Final

DEVICE: Final = "/dev/net/tun"
MAX_NAME: Final = 15  # characters of an interface's name (IFNAMSIZ with its zero byte)
# linux/if_tun.h
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000


class NoTun(Exception):
    """A TUN device cannot be had; the text says why and the way out."""


def open_tun(name: str) -> int:
    """A descriptor of the TUN device `name`, made if it is not there, with virtio headers; raises NoTun."""
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NoTun(f"{DEVICE} is not there; load its module: modprobe tun") from None
    except OSError as error:
        raise NoTun(f"{DEVICE}: {error.strerror}; {_remedy(error)}") from None
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError as error:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise NoTun(f"TUN device {name}: {error.strerror}; {_remedy(error)}") from None
    return descriptor


def _remedy(error: OSError) -> str:
    if error.errno in {1, 13}:  # EPERM, EACCES
        return "it needs CAP_NET_ADMIN: run viscript as root"
    return "another program may have it; see: ip link"
