"""A client by hand: plain pyzmq and msgpack, as honest or as hostile as a test wants it."""

import os
import struct
import time
from typing import Any, Self

import msgpack
import zmq

from bus import Address, KeyPair

PATIENCE = 10.0
HELLO, PING, BYE, PUBLISH, SIGNAL, SUBSCRIBE = 0x01, 0x02, 0x03, 0x10, 0x11, 0x12
REQUEST, REPLY, SERVE = 0x14, 0x15, 0x16
WELCOME, PONG, GOODBYE, OK, ERROR = 0x81, 0x82, 0x83, 0x84, 0x85
DELIVERY, REQUEST_DELIVERY, REPLY_DELIVERY, GAP = 0x90, 0x94, 0x95, 0x96


def routing_id() -> bytes:
    return b"\x01" + os.urandom(16)


def dealer(
    context: zmq.Context[zmq.Socket[bytes]],
    address: Address,
    pair: KeyPair | None,
    rid: bytes | None,
) -> zmq.Socket[bytes]:
    """A DEALER that is to be connected to this broker, once: it does not dial again.

    `rid=None` leaves the routing id to libzmq, empty is one of our choice.
    """
    made = context.socket(zmq.DEALER)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.RECONNECT_IVL, -1)
    if rid is not None:
        made.setsockopt(zmq.ROUTING_ID, rid or routing_id())
    if pair is not None:
        made.setsockopt_string(zmq.CURVE_SERVERKEY, address.key)
        made.setsockopt_string(zmq.CURVE_PUBLICKEY, pair.public)
        made.setsockopt_string(zmq.CURVE_SECRETKEY, pair.secret)
    return made


class Raw:
    """One DEALER and its monitor."""

    def __init__(
        self,
        address: Address,
        pair: KeyPair | None,
        rid: bytes | None = b"",
        options: dict[int, Any] | None = None,
    ) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = dealer(self.context, address, pair, rid)
        for option, value in (options or {}).items():
            self.socket.setsockopt(option, value)
        self.monitor = self.socket.get_monitor_socket()
        self.socket.connect(address.endpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.socket.closed:
            self.socket.disable_monitor()
            self.socket.close(linger=0)
        self.monitor.close(linger=0)
        self.context.destroy()

    def hang_up(self) -> None:
        """Close at once; what was sent still leaves, as far as LINGER says."""
        self.socket.disable_monitor()
        self.socket.close()

    def send(self, code: int, fields: dict[str, Any] | None = None, *body: bytes) -> None:
        self.socket.send_multipart([b"SB\x01" + bytes([code]) + msgpack.packb(fields or {}), *body])

    def hear(self, patience: float = PATIENCE) -> tuple[int, dict[str, Any], bytes]:
        """Give code, fields and body of the next message."""
        if not self.socket.poll(int(patience * 1000)):
            raise AssertionError("nothing was heard")
        head, *body = self.socket.recv_multipart()
        assert head[:3] == b"SB\x01"
        assert len(body) <= 1
        return head[3], msgpack.unpackb(head[4:]), b"".join(body)

    def hear_only(self, code: int) -> dict[str, Any]:
        heard, fields, _ = self.hear()
        assert heard == code, (hex(heard), fields)
        return fields

    def silent(self, seconds: float) -> bool:
        return not self.socket.poll(int(seconds * 1000))

    def hello(self, **fields: Any) -> dict[str, Any]:
        """Open the session; give WELCOME."""
        self.send(HELLO, fields)
        return self.hear_only(WELCOME)

    def alive(self) -> bool:
        """Whether the session still answers."""
        self.send(PING, {"t": 4711})
        return self.hear_only(PONG)["t"] == 4711

    def event(self, *kinds: int, patience: float = PATIENCE) -> int:
        """Wait for one of these events of the connection; give its value."""
        deadline = time.monotonic() + patience
        while self.monitor.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            kind, value = struct.unpack("=HI", self.monitor.recv_multipart()[0])
            if kind in kinds:
                return int(value)
        raise AssertionError(f"none of {kinds} happened")

    def is_cut(self) -> bool:
        self.event(zmq.EVENT_DISCONNECTED)
        return True
