"""The SOCKS pair over two real nodes, spoken to with plain sockets."""

import contextlib
import random
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pair import Pair, running_pair
from tests.support.socks import GREETING, ask, connect, receive, receive_all, request
from tests.support.stack import free_port
from tests.support.web import PAGE, Web, counting_server, web_server

GET = b"GET / HTTP/1.0\r\n\r\n"


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with web_server() as running:
        yield running


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with running_pair("--allow", "127.0.0.1/32", "--allow", "::1/128") as running:
        yield running


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def fetch(socks_port: int, web: Web) -> bytes:
    with connect(socks_port) as sock:
        assert ask(sock, "127.0.0.1", web.port) == 0
        sock.sendall(GET)
        return body_of(receive_all(sock))


def eventually_fetch(socks_port: int, web: Web, seconds: float = 20) -> bytes:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return fetch(socks_port, web)
        except (OSError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_page_comes_through(pair: Pair, web: Web, host: str):
    with connect(pair.socks_port) as sock:
        assert ask(sock, host, web.port) == 0
        sock.sendall(GET)
        assert body_of(receive_all(sock)) == PAGE


def test_an_ipv6_target(pair: Pair):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:  # of this machine, not of what is tested
        pytest.skip(f"no IPv6 loopback: {error}")
    with counting_server("::1") as port, connect(pair.socks_port) as sock:
        assert ask(sock, "::1", port) == 0
        sock.sendall(b"12345")
        sock.shutdown(socket.SHUT_WR)
        assert receive_all(sock) == b"5"


def test_data_sent_before_the_replies_arrives_once_and_in_order(pair: Pair, web: Web):
    with connect(pair.socks_port) as sock:
        sock.sendall(GREETING + request("127.0.0.1", web.port) + GET)
        assert receive(sock, 12)[:4] == b"\5\0\5\0"
        assert body_of(receive_all(sock)) == PAGE


def test_byte_by_byte(pair: Pair, web: Web):
    with connect(pair.socks_port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in GREETING + request("localhost", web.port) + GET:
            sock.sendall(bytes((byte,)))
            time.sleep(0.002)
        assert receive(sock, 12)[:4] == b"\5\0\5\0"
        assert body_of(receive_all(sock)) == PAGE


def test_a_half_closed_stream_still_answers(pair: Pair):
    with counting_server() as port, connect(pair.socks_port) as sock:
        assert ask(sock, "127.0.0.1", port) == 0
        sock.sendall(bytes(3_000_000))
        sock.shutdown(socket.SHUT_WR)
        assert receive_all(sock) == b"3000000"


@pytest.mark.parametrize(
    ("host", "code"),
    [("127.0.0.1", 5), ("10.0.0.1", 2), ("169.254.169.254", 2), ("no-such-host.invalid", 4)],
)
def test_failures_have_their_codes(pair: Pair, host: str, code: int):
    with connect(pair.socks_port) as sock:
        assert ask(sock, host, free_port()) == code
        assert sock.recv(1) == b""  # an orderly end, not a reset


def test_bind_is_not_spoken(pair: Pair):
    with connect(pair.socks_port) as sock:
        sock.sendall(GREETING + request("127.0.0.1", 80, 2))
        assert receive(sock, 12)[:4] == b"\5\0\5\7"
        assert sock.recv(1) == b""


def test_garbage_is_cut_off_and_leaves_the_app_working(pair: Pair, web: Web):
    seeded = random.Random(2)
    for _ in range(50):
        with connect(pair.socks_port, timeout=5) as sock:
            try:
                sock.sendall(b"\5" * seeded.randrange(2) + seeded.randbytes(1000))
                sock.shutdown(socket.SHUT_WR)
                receive_all(sock)
            except ConnectionError:
                pass  # cut off while it still talked
    assert fetch(pair.socks_port, web) == PAGE
    assert "Traceback" not in pair.log("near")


def test_http_connect_at_the_same_port(pair: Pair, web: Web):
    with connect(pair.socks_port) as sock:
        sock.sendall(b"CONNECT localhost:%d HTTP/1.1\r\n\r\n" % web.port + GET)  # at once
        answer = receive_all(sock)
        established = b"HTTP/1.1 200 Connection established\r\n\r\n"
        assert answer.startswith(established)
        assert body_of(answer.removeprefix(established)) == PAGE


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (b"CONNECT 127.0.0.1:%d HTTP/1.1", b"502"),
        (b"CONNECT 10.0.0.1:%d HTTP/1.1", b"403"),
        (b"GET http://127.0.0.1:%d/ HTTP/1.1", b"405"),
    ],
)
def test_http_failures_have_their_status(pair: Pair, first: bytes, status: bytes):
    with connect(pair.socks_port, timeout=20) as sock:
        sock.sendall(first % free_port() + b"\r\n\r\n")
        assert receive_all(sock).startswith(b"HTTP/1.1 " + status)


def test_a_target_that_resets_is_a_reset(pair: Pair):
    with socket.create_server(("127.0.0.1", 0)) as server, connect(pair.socks_port) as sock:
        assert ask(sock, "127.0.0.1", server.getsockname()[1]) == 0
        target, _ = server.accept()
        target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        target.close()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_a_client_that_resets_resets_the_target(pair: Pair):
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = connect(pair.socks_port)
        assert ask(sock, "127.0.0.1", server.getsockname()[1]) == 0
        target, _ = server.accept()
        with target:
            target.settimeout(10)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
            with pytest.raises(ConnectionResetError):
                target.recv(1)


def test_an_idle_stream_is_reset(pair: Pair):
    with (
        pair.another_near("--idle", "1") as port,
        counting_server() as target,
        connect(port) as sock,
    ):
        assert ask(sock, "127.0.0.1", target) == 0
        began = time.monotonic()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        assert 0.5 < time.monotonic() - began < 10


def test_with_users_a_password_is_needed(pair: Pair, web: Web, tmp_path: Path):
    users = tmp_path / "users"
    users.write_text("ann:secret\n")
    users.chmod(0o600)
    with pair.another_near("--user-file", str(users)) as port:
        with connect(port) as sock:
            sock.sendall(GREETING)
            assert receive_all(sock) == b"\5\xff"
        with connect(port) as sock:
            sock.sendall(b"\5\1\2\1\3ann\5wrong")
            assert receive_all(sock) == b"\5\2\1\1"
        with connect(port) as sock:
            sock.sendall(b"\5\1\2\1\3ann\6secret" + request("127.0.0.1", web.port) + GET)
            assert receive(sock, 14)[:6] == b"\5\2\1\0\5\0"
            assert body_of(receive_all(sock)) == PAGE
        assert "secret" not in pair.log("near2")


def test_beyond_the_cap_clients_are_turned_away(pair: Pair):
    with (
        pair.another_near("--max-connections", "2") as port,
        counting_server() as target,
        connect(port) as first,
        connect(port) as second,
        connect(port, timeout=5) as third,
    ):
        assert ask(first, "127.0.0.1", target) == ask(second, "127.0.0.1", target) == 0
        assert ask(third, "127.0.0.1", target) == 1
        assert third.recv(1) == b""


def test_2000_clients_that_say_nothing_keep_nobody_out(pair: Pair, web: Web):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as opened:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(2000):
            opened.enter_context(connect(pair.socks_port))
        assert fetch(pair.socks_port, web) == PAGE


def test_clients_that_wait_when_the_app_is_stopped_do_not_delay_it(pair: Pair):
    with pair.another_near() as port, counting_server() as target:
        asleep, busy = connect(port, timeout=5), connect(port, timeout=5)
        assert ask(busy, "127.0.0.1", target) == 0
    with asleep, busy, pytest.raises(ConnectionResetError):
        busy.recv(1)  # its stream ended with the app that opened it


def test_a_stream_given_up_while_the_exit_dials_leaves_no_connection_behind(pair: Pair):
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = server.getsockname()[1]
        fill = [opened.enter_context(socket.socket()) for _ in range(4)]
        for each in fill:
            each.settimeout(0.2)
            each.connect_ex(("127.0.0.1", port))  # until the queue is full: who dials now, waits
        with pair.another_near() as socks_port:
            waiting = opened.enter_context(connect(socks_port))
            waiting.sendall(GREETING + request("127.0.0.1", port))
            time.sleep(0.3)
        for each in fill:
            each.close()
        server.settimeout(10)
        with contextlib.suppress(TimeoutError):  # taken one by one, the dialled one among them
            while True:
                client, _ = server.accept()
                client.settimeout(10)
                with client, contextlib.suppress(ConnectionResetError):
                    assert client.recv(1) == b""
                server.settimeout(4)


ENDS = [
    (["--node", "alpha"], 2, "--exit"),
    (["--node", "alpha", "--exit", "beta", "--listen", "0.0.0.0:1080"], 2, "--user-file"),
    (["--node", "alpha", "--exit", "beta", "--listen", "here:80"], 2, "127.0.0.1:1080"),
    (["--node", "alpha", "--exit", "beta", "--user-file", "/nowhere"], 4, "/nowhere"),
]


@pytest.mark.parametrize(("arguments", "code", "way_out"), ENDS)
def test_wrong_arguments_end_it_with_a_code_and_a_way_out(
    arguments: list[str], code: int, way_out: str
):
    command = [sys.executable, "-P", "-m", "apps.socks.client", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert found.returncode == code
    assert way_out in found.stderr


def test_a_port_already_taken_is_told_with_the_way_out(pair: Pair):
    place = f"127.0.0.1:{pair.socks_port}"
    command = [sys.executable, "-P", "-m", "apps.socks.client", "--node", "alpha"]
    found = subprocess.run(
        [*command, "--exit", "beta", "--listen", place],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert found.returncode == 9
    assert place in found.stderr
    assert "choose another --listen" in found.stderr


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_a_node_that_dies_resets_every_stream_and_all_heals(pair: Pair, web: Web, name: str):
    with counting_server() as port, connect(pair.socks_port, timeout=20) as sock:
        assert ask(sock, "127.0.0.1", port) == 0
        sock.sendall(b"x")
        pair.kill(name)
        with connect(pair.socks_port, timeout=20) as other:
            assert ask(other, "127.0.0.1", web.port) == (1 if name == "alpha" else 3)
        # A far node may only have lost its links: its streams wait until it is back and says that
        # it knows nothing of them. One's own is gone at once.
        pair.start_node(name, *(["alpha"] if name == "beta" else []))
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert eventually_fetch(pair.socks_port, web) == PAGE


def test_an_exit_that_is_away_is_a_failure_and_comes_back(pair: Pair, web: Web):
    pair.kill("far")
    time.sleep(0.5)
    with connect(pair.socks_port) as sock:
        assert ask(sock, "127.0.0.1", web.port) == 1
    pair.start_far("--allow", "127.0.0.1/32")
    assert eventually_fetch(pair.socks_port, web) == PAGE
