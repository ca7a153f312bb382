"""Many connections at once, all sending as fast as they can: how much each of them brings."""

import contextlib
import selectors
import socket
import threading
import time

CHUNK = 1 << 18


def shares(ends: list[tuple[socket.socket, socket.socket]], seconds: float) -> list[int]:
    """Bytes that came by each connection within `seconds`, after a second to settle."""
    over = threading.Event()
    sender = threading.Thread(target=_send, args=([near for near, _ in ends], over))
    sender.start()
    counts = dict.fromkeys((far for _, far in ends), 0)
    _receive(counts, 1.0)
    before = counts.copy()
    _receive(counts, seconds)
    over.set()
    sender.join()
    return [counts[far] - before[far] for _, far in ends]


def _send(socks: list[socket.socket], over: threading.Event) -> None:
    data = bytes(CHUNK)
    with selectors.EpollSelector() as watched:
        for sock in socks:
            sock.settimeout(0)
            watched.register(sock, selectors.EVENT_WRITE)
        while not over.is_set():
            for key, _ in watched.select(0.1):
                with contextlib.suppress(BlockingIOError):
                    key.fileobj.send(data)  # type: ignore[union-attr]


def _receive(counts: dict[socket.socket, int], seconds: float) -> None:
    buffer, end = bytearray(CHUNK), time.monotonic() + seconds
    with selectors.EpollSelector() as watched:
        for sock in counts:
            sock.settimeout(0)
            watched.register(sock, selectors.EVENT_READ, sock)
        while time.monotonic() < end:
            for key, _ in watched.select(0.1):
                counts[key.data] += key.data.recv_into(buffer, CHUNK, socket.MSG_TRUNC)
