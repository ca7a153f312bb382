"""UDP ASSOCIATE through both halves of the SOCKS pair, over two real nodes, with plain sockets."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.pair import Pair, running_pair
from tests.support.socks import GREETING, connect, receive, request

Place = tuple[str, int]

pytestmark = pytest.mark.timeout(200)  # each begins with a broker, a manager and two nodes


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with running_pair("--allow", "127.0.0.1/32") as running:
        asyncio.run(running.exit_listens())
        yield running


@contextlib.contextmanager
def echo() -> Iterator[int]:
    """Answers each datagram with itself, in capitals."""

    def serve() -> None:
        while True:
            data, source = server.recvfrom(65_535)
            if data == b"stop":
                return
            server.sendto(data.upper(), source)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.sendto(b"stop", server.getsockname())
        thread.join()


@contextlib.contextmanager
def associated(pair: Pair) -> Iterator[tuple[socket.socket, socket.socket, Place]]:
    """The control connection, a socket for datagrams, and where they are to be sent."""
    with (
        connect(pair.socks_port) as control,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        control.sendall(GREETING + request("0.0.0.0", 0, command=3))
        answer = receive(control, 12)
        assert answer[:6] == b"\5\0\5\0\0\1"
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(1)
        yield control, udp, (socket.inet_ntoa(answer[6:10]), int.from_bytes(answer[10:]))


def exchange(udp: socket.socket, relay: Place, host: str, port: int, data: bytes) -> bytes:
    """What comes back for a datagram; it is sent again while nothing does, as UDP wants it."""
    message = b"\0\0\0" + request(host, port)[3:] + data
    deadline = time.monotonic() + 30
    while True:
        udp.sendto(message, relay)
        try:
            return udp.recv(65_535)
        except TimeoutError:
            assert time.monotonic() < deadline


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f000001"])
def test_a_datagram_and_its_answer_pass_both_halves(pair: Pair, host: str):
    with echo() as port, associated(pair) as (_, udp, relay):
        found = exchange(udp, relay, host, port, b"question")
        assert found == b"\0\0\0" + request("127.0.0.1", port)[3:] + b"QUESTION"


def test_the_exit_refuses_datagrams_to_private_places_and_the_association_lives_on(pair: Pair):
    with echo() as port, associated(pair) as (control, udp, relay):
        for host in ("169.254.169.254", "10.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"):
            udp.sendto(b"\0\0\0" + request(host, port)[3:] + b"secret", relay)
        assert exchange(udp, relay, "127.0.0.1", port, b"after")[-5:] == b"AFTER"
        control.settimeout(0.1)
        with pytest.raises(TimeoutError):
            control.recv(1)
