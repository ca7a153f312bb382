"""A slow link between two namespaces, in user space, for kernels without netem: rate, delay, queue.

`python -P benchmarks/slow_link.py FIRST SECOND MBIT DELAY_MS QUEUE_MS` joins two namespaces by a TUN
device called `slow` in each, says so in one line, and carries packets until it is ended. The delay is
that of one direction. What comes while more than QUEUE_MS of the rate waits is dropped.
"""

import contextlib
import ctypes
import fcntl
import os
import select
import struct
import sys
import threading
import time
from collections import deque
from pathlib import Path

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
DEVICE = "slow"
BURST = 64  # packets read at once


class Direction:
    """Packets on their way from one device to the other."""

    def __init__(self, source: int, target: int, rate: float, delay: float, queue: float) -> None:
        self.source = source
        self._target, self._rate, self._delay, self._queue = target, rate, delay, queue
        self._free = 0.0  # when the last packet is on the wire
        self._under_way: deque[tuple[float, bytes]] = deque()

    def read(self) -> None:
        now = time.monotonic()
        for _ in range(BURST):
            try:
                packet = os.read(self.source, 65536)
            except BlockingIOError:
                return
            begun = max(self._free, now)
            if begun - now <= self._queue:
                self._free = begun + len(packet) / self._rate
                self._under_way.append((self._free + self._delay, packet))

    def deliver(self) -> float:
        """Hand over what has arrived; seconds until the next does."""
        now = time.monotonic()
        while self._under_way:
            due, packet = self._under_way[0]
            if due > now:
                return due - now
            self._under_way.popleft()
            with contextlib.suppress(OSError):  # it is down, or full: lost, as on any link
                os.write(self._target, packet)
        return 1.0


def device_in(namespace: str) -> int:
    made: list[int] = []

    def enter() -> None:
        with Path("/run/netns", namespace).open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter the namespace {namespace}")
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
        made.append(tun)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return made[0]


def main() -> int:
    first, second = (device_in(name) for name in sys.argv[1:3])
    mbit, delay, queue = map(float, sys.argv[3:6])
    rate = mbit * 1e6 / 8
    directions = [
        Direction(source, target, rate, delay / 1e3, queue / 1e3)
        for source, target in ((first, second), (second, first))
    ]
    by_source = {direction.source: direction for direction in directions}
    poll = select.epoll()
    for source in by_source:
        poll.register(source, select.EPOLLIN)
    print("ready", flush=True)
    while True:
        pause = min(direction.deliver() for direction in directions)
        for source, _ in poll.poll(pause):
            by_source[source].read()


if __name__ == "__main__":
    sys.exit(main())
