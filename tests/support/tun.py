"""A TUN device in a network namespace, handed over to a node. Needs root and iproute2."""

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

from nodes.client import Tunnel, connect_node
from nodes.local import Offload
from tests.support.namespaces import CLONE_NEWNET, SpreadMesh, ip

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x1, 0x1000, 0x4000
MTU = 1420
_Value = TypeVar("_Value")

PATIENCE = 10.0  # seconds


def inside(namespace: str, work: Callable[[], _Value]) -> _Value:
    """Do something in a network namespace, and stay outside."""
    made: list[_Value] = []

    def enter() -> None:
        with Path("/run/netns", namespace).open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter the namespace {namespace}")
        made.append(work())

    thread = threading.Thread(target=enter)  # a thread may change its namespace, and end in it
    thread.start()
    thread.join()
    return made[0]


def open_tun(name: str, flags: int = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR) -> int:
    """A new device; one of this name may just be on its way out, with the node that held it."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            return descriptor
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                os.close(descriptor)
                raise
            time.sleep(0.01)


def device(namespace: str, name: str, *addresses: str, mtu: int = MTU) -> int:
    """A descriptor of a device that is up in `namespace` and has these addresses."""
    descriptor = inside(namespace, lambda: open_tun(name))
    for address in addresses:
        bits = ["nodad"] if ":" in address else []
        ip("-n", namespace, "addr", "add", address, "dev", name, *bits)
    ip("-n", namespace, "link", "set", name, "mtu", str(mtu), "txqueuelen", "500", "up")
    return descriptor


@contextlib.asynccontextmanager
async def tunnel(
    mesh: SpreadMesh, node: str, *addresses: str, mtu: int = MTU, offload: Offload = "auto"
) -> AsyncIterator[Tunnel]:
    """The node's tunnel `tun0` in its own namespace."""
    descriptor = device(mesh.spaces.of(node), "tun0", *addresses, mtu=mtu)
    try:
        async with connect_node(mesh.socket(node), "vpn") as connected:
            yield await connected.tunnel(descriptor, "tun0", mtu=mtu, offload=offload)
    finally:
        os.close(descriptor)


def socket_inside(namespace: str) -> socket.socket:
    """A UDP socket that lives in a namespace."""
    return inside(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
