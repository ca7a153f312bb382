"""Measuring a stream: what is counted, and what is no report."""

import socket
import struct
import threading
from collections.abc import Callable

import pytest

from nodes import speed


def against(far: Callable[[socket.socket], None], seconds: float = 0.05) -> tuple[int, float]:
    """Send to somebody for so long."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=far, args=(theirs,))
    thread.start()
    try:
        return speed._send(ours, seconds)
    finally:
        ours.close()
        thread.join()
        theirs.close()


def after_all(report: bytes) -> Callable[[socket.socket], None]:
    def far(sock: socket.socket) -> None:
        while sock.recv(1 << 20):
            pass
        sock.sendall(report)
        sock.close()

    return far


def test_what_was_sent_is_what_was_counted():
    octets, seconds = against(speed._count)
    assert octets > 0
    assert octets % len(speed._BLOCK) == 0
    assert 0 < seconds < 10


def test_nobody_can_have_counted_more_than_was_sent():
    with pytest.raises(OSError):
        against(after_all(struct.pack(">Qd", 1 << 60, 1.0)))


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_a_time_that_is_none_is_no_report(seconds):
    with pytest.raises(OSError):
        against(after_all(struct.pack(">Qd", 1, seconds)))


def test_half_a_report_is_none():
    with pytest.raises(OSError):
        against(after_all(b"12345"))
