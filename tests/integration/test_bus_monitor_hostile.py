"""Who may see the broker's pages, and who abuses them: the bus notices nothing, the pages go on."""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bus.monitor import MAX_CONNECTIONS, MAX_HEAD
from tests.support.broker import Broker, run_cli
from tests.support.raw import ERROR, REQUEST, Raw
from tests.support.watched import EVERY_PAGE, Pages, hear_out, pages_of, show_pages, watched_broker

# Who may see the pages, and how.


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    """The pages of a broker where nothing happens."""
    with watched_broker() as (_, found):
        yield found


def test_without_the_key_there_are_no_pages_and_nothing_of_them_is_imported() -> None:
    code = (
        "import sys, bus.cli, bus.broker, bus.settings; "
        "print([m for m in ('prometheus_client', 'http.server', 'bus.monitor') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30
    )
    assert found.stdout.strip() == "[]"


def test_an_address_that_others_could_reach_is_refused_with_the_way_out(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    show_pages(broker, "0.0.0.0:7601")
    result = run_cli("run", str(broker.folder))
    assert result.returncode == 8
    assert (
        f"{tmp_path / 'broker.json'}: monitor: 0.0.0.0 is not a loopback address" in result.stderr
    )
    assert "write 127.0.0.1:PORT" in result.stderr


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        broker = Broker(tmp_path)
        show_pages(broker, address)
        result = run_cli("run", str(broker.folder))
        assert result.returncode == 9
        assert f"monitor: cannot listen on {address}: Address already in use" in result.stderr


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.5:80", "", "[::"]
)
def test_a_name_of_somebody_elses_is_turned_away(pages: Pages, host: str) -> None:
    for page in EVERY_PAGE:
        response, body = pages.ask(page, Host=host)
        assert response.status == 403
        assert "Host header must name this machine" in json.loads(body)["error"]


def test_requests_without_a_host_or_with_two_are_turned_away(pages: Pages) -> None:
    assert pages.say(b"GET /varz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 403 ")
    two = b"GET /varz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert pages.say(two).startswith(b"HTTP/1.0 403 ")
    whole = b"GET http://evil.example/varz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert pages.say(whole).startswith(b"HTTP/1.0 404 ")


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:1", "LOCALHOST:80", "[::1]:9", "127.0.0.1"]
)
def test_names_of_this_machine_are_fine_through_any_port(pages: Pages, host: str) -> None:
    assert pages.ask("/healthz", Host=host)[0].status == 200


def test_head_gives_the_same_without_the_body(pages: Pages) -> None:
    for page in EVERY_PAGE:
        response, body = pages.ask(page, "HEAD")
        assert (response.status, body) == (200, b"")
        assert int(response.headers["Content-Length"]) > 0
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_nothing_but_reading_is_possible(pages: Pages, method: str) -> None:
    response, body = pages.ask("/sessions", method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
    assert json.loads(body) == {"error": "pages are read with GET or HEAD"}


@pytest.mark.parametrize(
    ("path", "status"),
    [("/nothing", 404), ("/varz/", 404), ("/../varz", 404), ("/sessions?limit=-1", 400),
     ("/sessions?limit=10001", 400), ("/sessions?offset=x", 400), ("/sessions?limit=1&offset=5", 200),
     ("/sessions?" + "a=1&" * 3000, 200), ("/varz?x", 200)],
)  # fmt: skip
def test_wrong_paths_and_queries_are_told(pages: Pages, path: str, status: int) -> None:
    assert pages.ask(path)[0].status == status


# Hostile HTTP: the bus notices nothing, and the pages go on.


@contextmanager
def calm_bus() -> Iterator[tuple[Broker, Pages, Raw]]:
    """A broker with pages; `alice`, who is in session, must not notice what happens to them."""
    with (
        watched_broker(alice="app") as (broker, pages),
        Raw(broker.address, broker.keys["alice"]) as alice,
    ):
        alice.hello()
        yield broker, pages, alice
        assert alice.alive()
        assert pages.get("/healthz")["ok"]
        assert pages.get("/varz")["sessions"] == 1
        assert "Traceback" not in broker.log
        assert broker.running


def test_idle_connections_keep_out_neither_a_probe_nor_the_bus() -> None:
    """The bound: 16 connections are open at once, each with one thread; the oldest gives way."""
    with calm_bus() as (broker, pages, alice), contextlib.ExitStack() as idle:
        before = broker.rss
        for number in range(200):
            idle.enter_context(pages.dial())
            if number % 20 == 0:
                assert alice.alive()
        assert pages.get("/healthz")["ok"]
        threads = len(list(Path(f"/proc/{broker.process.pid}/task").iterdir()))
        assert threads <= MAX_CONNECTIONS + 12  # libzmq's, the pages' and the loop's
        assert broker.rss - before < 32 << 20


def test_a_request_that_dribbles_in_is_hung_up_on() -> None:
    with calm_bus() as (_, pages, alice), pages.dial(30) as slow:
        start = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - start < 20:
                slow.sendall(b"G")
                time.sleep(0.2)
                assert alice.alive()
        assert time.monotonic() - start < 15


@pytest.mark.parametrize(
    "said",
    [b"GET /varz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (8 << 20),
     b"GET /" + b"x" * (8 << 20),
     b"GET /varz HTTP/1.1\r\n" + b"X: y\r\n" * 500_000,
     b"GET /varz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 99 + b"A" * MAX_HEAD],
    ids=["a huge header", "a huge path", "many headers", "just too large"],
)  # fmt: skip
def test_a_head_that_is_too_large_is_refused_and_costs_nothing(said: bytes) -> None:
    with calm_bus() as (broker, pages, _):
        before = broker.rss
        with pages.dial() as tcp:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                tcp.sendall(said)
            heard = hear_out(tcp)
        assert not heard or heard.split()[1] in {b"414", b"431"}
        assert broker.rss - before < 8 << 20


@pytest.mark.parametrize(
    "said",
    [b"\x00" * 64 + b"\n\n", b"\x16\x03\x01\x02\x00\x01\x00" + b"\xff" * 60 + b"\n\n",
     b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nHost\r\n\r\n",
     b"GET /\xff\xfe HTTP/1.1\r\n\r\n"],
)  # fmt: skip
def test_what_is_not_http_is_hung_up_on(pages: Pages, said: bytes) -> None:
    heard = pages.say(said)
    assert not heard or 400 <= int(heard.split()[1]) < 600
    assert pages.get("/healthz")["ok"]


def test_a_body_is_not_read(pages: Pages) -> None:
    local = b"HTTP/1.1\r\nHost: localhost\r\n"
    said = b"POST /varz " + local + b"Content-Length: 9\r\n\r\n{'a': 1}"
    assert pages.say(said).startswith(b"HTTP/1.0 405 ")
    said = b"GET / " + local + b"Content-Length: -1\r\nTransfer-Encoding: chunked\r\n\r\nzz"
    assert pages.say(said).startswith(b"HTTP/1.0 200 ")


def test_readers_who_ask_without_end_slow_the_bus_down_by_a_bounded_amount() -> None:
    """A hundred answers a second at most: beside them a round trip stays far below a second."""
    with calm_bus() as (_, pages, alice):
        stop = threading.Event()

        def hammer() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError, http.client.HTTPException):
                    pages.ask("/metrics")

        readers = [threading.Thread(target=hammer) for _ in range(8)]
        for reader in readers:
            reader.start()
        taken = []
        try:
            for number in range(100):
                start = time.monotonic()
                alice.send(REQUEST, {"id": number, "s": "app.nobody", "dl": 1000})
                assert alice.hear_only(ERROR)["err"] == "no_responders"
                taken.append(time.monotonic() - start)
        finally:
            stop.set()
            for reader in readers:
                reader.join()
        assert sorted(taken)[len(taken) // 2] < 0.5


def test_pages_on_ipv6_loopback_are_there_where_the_machine_has_it(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    show_pages(broker, "[::1]:0")
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    broker.start()
    try:
        pages = pages_of(broker)
        assert pages.host == "::1"
        assert pages.get("/healthz")["ok"]
    finally:
        broker.stop()
