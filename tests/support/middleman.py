"""A broker that is made wrong: it stands before the real one with its key, and changes what passes."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import zmq

from bus import Address, keystore, sockets
from bus.zap import ZapHandler
from tests.support.broker import Broker
from tests.support.stack import free_port

MAX = 64 << 20

# What becomes of a message of the broker: (code, fields, body) to the frames that go on; None: none does.
Change = Callable[[int, dict[str, Any], list[bytes]], list[bytes] | None]


def frames(code: int, fields: dict[str, Any], body: list[bytes]) -> list[bytes]:
    return [b"SB\x01" + bytes([code]) + msgpack.packb(fields), *body]


class Middleman:
    """Each connection of a participant is one connection with its key and routing id to the broker."""

    def __init__(self, broker: Broker, change: Change, *, cuts: bool) -> None:
        self._keys = {pair.public: pair for pair in broker.keys.values()}
        self._real = broker.address
        self._change = change
        self._cuts = cuts
        self._stop = threading.Event()
        self._context = sockets.new_context()
        self._zap = ZapHandler(self._context, {"bus": lambda key, *_: key in self._keys})
        own = keystore.load(broker.folder / "broker.key")
        self.address = Address(f"tcp://127.0.0.1:{free_port()}", own.public)
        self._front = sockets.serve(self._context, own, self.address.endpoint, max_message=MAX)
        self._gone = sockets.watch(self._front)
        self._backs: dict[bytes, tuple[sockets.Socket, sockets.Socket, int]] = {}

    def run(self) -> None:
        while not self._stop.is_set():
            monitors = [monitor for _, monitor, _ in self._backs.values()]
            backs = [back for back, _, _ in self._backs.values()]
            sockets.wait([self._front, self._zap.socket, self._gone, *backs, *monitors], 0.05)
            self._zap.drain()
            self._forward()
            self._bring_back()
        for rid in list(self._backs):
            self._forget(rid)
        self._context.destroy(linger=0)

    def stop(self) -> None:
        self._stop.set()

    def _forward(self) -> None:
        while sockets.readable(self._front):
            first = self._front.recv(copy=False)
            message = [part.bytes for part in self._front.recv_multipart(copy=False)]
            rid = first.bytes
            # Before it is taken for new: it may have the descriptor of one that is gone.
            self._forget_gone()
            if rid not in self._backs:
                pair = self._keys[str(first.get("User-Id")).partition(" ")[0]]
                back, monitor = sockets.dial(
                    self._context, pair, self._real, max_message=MAX, routing_id=rid
                )
                self._backs[rid] = back, monitor, int(first.get(sockets.SRCFD))
            self._backs[rid][0].send_multipart(message)
        self._forget_gone()

    def _forget_gone(self) -> None:
        for event in sockets.events(self._gone):
            if event.kind == sockets.DISCONNECTED:
                for rid in [rid for rid, (_, _, fd) in self._backs.items() if fd == event.value]:
                    self._forget(rid)

    def _forget(self, rid: bytes) -> None:
        back, monitor, _ = self._backs.pop(rid)
        sockets.close(back)
        monitor.close(linger=0)

    def _bring_back(self) -> None:
        for rid, (back, monitor, fd) in list(self._backs.items()):
            while sockets.readable(back):
                head, *body = back.recv_multipart()
                changed = self._change(head[3], msgpack.unpackb(head[4:]), body)
                if changed is not None:
                    with contextlib.suppress(zmq.ZMQError):  # gone meanwhile
                        self._front.send_multipart([rid, *changed])
            if self._cuts and any(e.kind == sockets.DISCONNECTED for e in sockets.events(monitor)):
                self._forget(rid)
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as duplicate:
                    duplicate.shutdown(socket.SHUT_RDWR)


@contextmanager
def middleman(broker: Broker, change: Change = frames, *, cuts: bool = True) -> Iterator[Address]:
    """Stand before `broker`; `cuts` is whether connections that it cuts are cut."""
    man = Middleman(broker, change, cuts=cuts)
    thread = threading.Thread(target=man.run)
    thread.start()
    try:
        yield man.address
    finally:
        man.stop()
        thread.join()
