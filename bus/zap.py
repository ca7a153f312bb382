"""Answers libzmq's question who may connect (ZAP, ZeroMQ RFC 27), from an immutable snapshot.

The answer stamps every later message of the connection with a User-Id of ``<key> <number>``: the key
that the handshake proved, and a number that is new for each connection, so that a reconnect or a second
connection of the same key is told apart. Nothing else on a message can be trusted (see docs/threats.md).

The handler has no thread: its owner drains it in the loop that also reads the server's messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import zmq

from bus.identity import KEY_BYTES, from_bytes
from bus.sockets import Context, Socket, descriptor

ENDPOINT = "inproc://zeromq.zap.01"
MAX_PER_TURN = 64
_VERSION = b"1.0"


# Whether this key may connect from this address (of the network, without a port).
Policy = Callable[[str, str], bool]


class ZapHandler:
    """The ZAP handler of one context; `policies` decide, per domain, who may connect.

    `refused` counts refusals by reason. libzmq never retries after the 400 that a refusal is.
    """

    def __init__(self, context: Context, policies: dict[str, Policy]) -> None:
        self.socket: Socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ENDPOINT)
        self.refused: Counter[str] = Counter()
        self._policies = policies
        self.last = 0  # number that a connection was given

    def fileno(self) -> int:
        return descriptor(self.socket)

    def drain(self) -> bool:
        """Answer what is waiting, a bounded number a turn; True when more may wait."""
        for _ in range(MAX_PER_TURN):
            try:
                frames = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return False
            self._answer(frames)
        return True

    def close(self) -> None:
        self.socket.close(linger=0)

    def _answer(self, frames: list[bytes]) -> None:
        envelope, rest = frames[:2], frames[2:]
        if len(rest) < 6 or rest[0] != _VERSION:  # not from libzmq's ZAP client
            self.refused["malformed"] += 1
            return
        request, domain, address, mechanism, credentials = *rest[1:4], rest[5], rest[6:]
        key = self._admitted(domain, address, mechanism, credentials)
        self.last += key is not None
        user = f"{key} {self.last}".encode() if key else b""
        status = [b"200", b"OK"] if key else [b"400", b"this key is not allowed"]
        self.socket.send_multipart([*envelope, _VERSION, request, *status, user, b""])

    def _admitted(
        self, domain: bytes, address: bytes, mechanism: bytes, credentials: list[bytes]
    ) -> str | None:
        policy = self._policies.get(domain.decode("ascii", "replace"))
        if policy is None or mechanism != b"CURVE":
            self.refused["domain_or_mechanism"] += 1
            return None
        if len(credentials) != 1 or len(credentials[0]) != KEY_BYTES:
            self.refused["malformed"] += 1
            return None
        key = from_bytes(credentials[0])
        if not policy(key, address.decode("ascii", "replace")):
            self.refused["key_unknown"] += 1
            return None
        return key
