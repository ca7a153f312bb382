"""ZeroMQ sockets with every option set: the only place in `bus` that imports zmq, with `zap`.

Why each option stands here is in docs/protocol/sb1.md, section Transport; the short form: a dead or
hostile peer must neither block nor bloat us, and nothing may linger at exit.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

import zmq

from bus.egress import Egress
from bus.errors import BusError, EndpointTaken, Unreachable
from bus.identity import Address, KeyPair

Again = zmq.Again
ZMQError = zmq.ZMQError
Frame = zmq.Frame
Socket = zmq.Socket[bytes]
Context = zmq.Context[zmq.Socket[bytes]]

# Plain integers: combining pyzmq's enums costs a microsecond each time.
DONTWAIT = int(zmq.DONTWAIT)
MORE = int(zmq.SNDMORE | zmq.DONTWAIT)
RCVMORE = int(zmq.RCVMORE)
SRCFD = int(zmq.SRCFD)
MAX_SOCKETS = int(zmq.MAX_SOCKETS)  # of a context
READABLE = int(zmq.POLLIN)
WRITABLE = int(zmq.POLLOUT)
_EVENTS = int(zmq.EVENTS)

DOMAIN = "bus"  # ZAP domain; must not be empty, or libzmq lets everybody in
HANDSHAKE_MS = 4000
HEARTBEAT_MS = 10_000
HEARTBEAT_TIMEOUT_MS = 15_000
HEARTBEAT_TTL_MS = 30_000  # above 65,500 it overflows and disconnects (libzmq#4226)
CURVE_OVERHEAD = 33
SEND_FRAMES = 64  # per peer inside libzmq; our own bounded outbox holds the rest
COPY_BELOW = 4096  # bytes; smaller frames are cheaper copied than reference counted
_ZAP_ENFORCE_DOMAIN = 93  # ZMQ_ZAP_ENFORCE_DOMAIN: a draft in name, works in every 4.3.x


def new_context(io_threads: int = 1, egress: Egress | None = None) -> Context:
    """The one context of a process; `BusError` when its libzmq is too old or has no CURVE.

    The connections that its threads make and take belong to `egress`.
    """
    if zmq.zmq_version_info() < (4, 3, 3):
        raise BusError(f"libzmq {zmq.zmq_version()} has known holes; 4.3.3 or newer is needed")
    if not zmq.has("curve"):
        raise BusError("this libzmq was built without CURVE")
    # libzmq never seeds rand(), from which it takes routing ids (libzmq#4633).
    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))
    context = Context(io_threads)
    context.setsockopt(zmq.LINGER, 0)
    if egress is not None:
        with egress:
            context.socket(zmq.PAIR).close()  # the first socket starts the threads
    return context


def new_keypair() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def public_of(secret: str) -> str:
    """The public half; `ValueError` when `secret` is no key."""
    try:
        return zmq.curve_public(secret.encode()).decode()
    except zmq.ZMQError as error:
        raise ValueError("not a CURVE secret key") from error


def _common(socket: Socket, max_message: int) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, max_message + CURVE_OVERHEAD)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TTL_MS)


def serve(
    context: Context, keypair: KeyPair, endpoint: str, *, max_message: int, domain: str = DOMAIN
) -> Socket:
    """A bound ROUTER that admits whom the ZAP handler of `domain` admits.

    Raises `EndpointTaken`, or another `BusError` naming the endpoint, when it cannot be bound.
    """
    socket = context.socket(zmq.ROUTER)
    _common(socket, max_message)
    socket.setsockopt(
        zmq.ROUTER_HANDOVER, 1
    )  # a routing id is unguessable; its newest owner is right
    socket.setsockopt(
        zmq.ROUTER_MANDATORY, 1
    )  # a peer that is full or gone is an error, not silence
    socket.setsockopt(zmq.SNDHWM, SEND_FRAMES)
    socket.setsockopt(zmq.RCVHWM, SEND_FRAMES)
    socket.setsockopt(zmq.BACKLOG, 1024)
    socket.setsockopt_string(zmq.ZAP_DOMAIN, domain)
    socket.setsockopt(_ZAP_ENFORCE_DOMAIN, 1)
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt_string(zmq.CURVE_SECRETKEY, keypair.secret)
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close(linger=0)
        kind = EndpointTaken if error.errno == zmq.EADDRINUSE else BusError
        raise kind(f"cannot listen on {endpoint}: {error.strerror}") from None
    return socket


def bound_endpoint(socket: Socket) -> str:
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def dial(
    context: Context,
    keypair: KeyPair,
    address: Address,
    *,
    max_message: int,
    send_frames: int = SEND_FRAMES,
    routing_id: bytes | None = None,
) -> tuple[Socket, Socket]:
    """A connecting DEALER and its monitor, which must be drained.

    libzmq's own reconnecting is off: one socket is one connection, and a lost one is replaced whole,
    so that nothing of an old session reaches a new one. A new `routing_id` is made unless one is given.
    Raises `Unreachable` for an impossible endpoint.
    """
    socket = context.socket(zmq.DEALER)
    _common(socket, max_message)
    socket.setsockopt(zmq.ROUTING_ID, routing_id or b"\x01" + os.urandom(16))
    socket.setsockopt(zmq.RECONNECT_IVL, -1)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, HANDSHAKE_MS)
    socket.setsockopt(zmq.SNDHWM, send_frames)
    socket.setsockopt(zmq.RCVHWM, SEND_FRAMES)
    monitor: Socket | None = None
    try:
        socket.setsockopt_string(zmq.CURVE_SERVERKEY, address.key)
        socket.setsockopt_string(zmq.CURVE_PUBLICKEY, keypair.public)
        socket.setsockopt_string(zmq.CURVE_SECRETKEY, keypair.secret)
        monitor = watch(socket)
        socket.connect(address.endpoint)
    except zmq.ZMQError as error:
        close(socket)
        if monitor is not None:
            monitor.close(linger=0)
        raise Unreachable(f"cannot connect to {address.endpoint}: {error.strerror}") from None
    return socket, monitor


# What a monitor tells; names as in zmq_socket_monitor(3).
CONNECTED = int(zmq.EVENT_CONNECTED)
HANDSHAKE_SUCCEEDED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
HANDSHAKE_FAILED = int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
HANDSHAKE_REFUSED = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
DISCONNECTED = int(zmq.EVENT_DISCONNECTED)
ACCEPTED = int(zmq.EVENT_ACCEPTED)
CLOSED = int(zmq.EVENT_CLOSED)
ACCEPT_FAILED = int(zmq.EVENT_ACCEPT_FAILED)
_WATCHED = (
    ACCEPTED | ACCEPT_FAILED | CONNECTED | HANDSHAKE_SUCCEEDED | HANDSHAKE_FAILED
    | HANDSHAKE_REFUSED | DISCONNECTED | CLOSED
)  # fmt: skip


class Event(NamedTuple):
    kind: int
    value: int  # descriptor, errno or ZAP status, by kind


def watch(socket: Socket) -> Socket:
    """The monitor of `socket`. An undrained monitor blocks libzmq's I/O thread (libzmq#3575)."""
    return socket.get_monitor_socket(_WATCHED)


def events(monitor: Socket) -> list[Event]:
    """All that the monitor has to tell now."""
    told: list[Event] = []
    while True:
        try:
            frames = monitor.recv_multipart(zmq.DONTWAIT)
        except (zmq.Again, zmq.ContextTerminated):
            return told
        if len(frames[0]) == 6:
            told.append(Event(*struct.unpack("=HI", frames[0])))


def close(socket: Socket) -> None:
    """Close with its monitor, at once; in this order (pyzmq#1554)."""
    socket.disable_monitor()
    socket.close(linger=0)


def descriptor(socket: Socket) -> int:
    """Readable means: look at the socket's state, which may have changed (edge-triggered)."""
    return int(socket.getsockopt(zmq.FD))


def state(socket: Socket) -> int:
    """`READABLE` and `WRITABLE`, as they are now. Asking may swallow the descriptor's edge: act on both."""
    return int(socket.getsockopt(_EVENTS))


def readable(socket: Socket) -> bool:
    return bool(state(socket) & READABLE)


def wait(sockets: list[Socket], seconds: float) -> None:
    """Block until one of `sockets` has something to read, at most `seconds`."""
    poller = zmq.Poller()
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
    poller.poll(max(0, int(seconds * 1000)))
