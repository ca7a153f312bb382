"""The broker's pages over HTTP and the same over the bus, against the real broker; and who abuses them."""

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bus import NotAuthorised, connect, signals
from bus.access import AccessList
from bus.identity import from_bytes
from bus.monitor import FRESH, MAX_CONNECTIONS, MAX_HEAD, PATIENCE, Monitor
from bus.routing.sessions import LIMITS, Sessions
from bus.routing.watching import Watching
from tests.support.broker import Broker, until
from tests.support.raw import ERROR, OK, PUBLISH, REQUEST, SUBSCRIBE, Raw
from tests.support.watched import Pages, hear_out, pages_of, show_pages, watched_broker

EVERY_PAGE = ["/healthz", "/varz", "/sessions", "/closed", "/services", "/topics", "/metrics", "/"]


def metrics(text: str) -> dict[tuple[str, ...], float]:
    """Parse Prometheus' text as Prometheus' own parser does; the keys are a name and label values."""
    return {
        (sample.name.removeprefix("viscript_bus_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# What the pages tell.


def test_the_pages_tell_who_is_there_and_what_passed() -> None:
    with (
        watched_broker(alice="app", boss="operator") as (broker, pages),
        Raw(broker.address, broker.keys["alice"]) as alice,
    ):
        alice.hello(name="alice")
        alice.send(SUBSCRIBE, {"id": 1, "sid": 1, "s": "topic.>"})
        alice.hear_only(OK)
        before = pages.get("/varz")
        assert (before["sessions"], before["subscriptions"], before["keys"]) == (1, 1, 2)
        for _ in range(3):
            alice.send(PUBLISH, {"s": "topic.x"}, bytes(1000))
            alice.hear()
        until(lambda: pages.get("/varz")["messages_out"] == before["messages_out"] + 3, "counted")
        varz = pages.get("/varz")
        assert varz["messages_in"] == before["messages_in"] + 3
        assert 3000 < varz["bytes_in"] - before["bytes_in"] < 3300
        assert 3000 < varz["bytes_out"] - before["bytes_out"] < 3900
        assert varz["pid"] == broker.process.pid
        assert abs(varz["now"] - time.time()) < 60
        assert 0 <= varz["now"] - varz["start"] < 60
        assert varz["rss"] > 10 << 20
        assert 0 < varz["cpu_seconds"] < 60
        [session] = pages.get("/sessions")["sessions"]
        assert (session["key"], session["name"]) == (broker.keys["alice"].public, "alice")
        assert pages.get("/sessions?key=nobody") == {"sessions": []}
        assert pages.get("/topics") == {"topics": []}
        assert pages.get("/healthz") == {"ok": True, "problems": []}


def test_a_session_that_has_ended_is_told_with_its_end_and_still_counts() -> None:
    with watched_broker(alice="app") as (broker, pages):
        with Raw(broker.address, broker.keys["alice"]) as alice:
            alice.hello(name="alice")
            alice.send(PUBLISH, {"s": "mesh.denied", "id": 1})
            assert alice.hear_only(ERROR)["err"] == "denied"
            alice.send(0x03, {"reason": "that is all"})
            alice.hear()
        until(lambda: pages.get("/varz")["sessions"] == 0, "the session is over")
        [closed] = pages.get("/closed")["sessions"]
        assert (closed["key"], closed["name"]) == (broker.keys["alice"].public, "alice")
        assert (closed["num"], closed["reason"]) == (0, "that is all")
        assert closed["since"] <= closed["until"]
        varz = pages.get("/varz")
        assert varz["messages_in"] >= 2
        assert varz["refused"]["denied"] == 1


def test_metrics_are_what_prometheus_reads() -> None:
    with watched_broker(alice="app") as (broker, pages):
        with Raw(broker.address, broker.keys["alice"]) as alice:
            alice.hello()
            alice.send(PUBLISH, {"s": "mesh.denied", "id": 1})
            alice.hear_only(ERROR)
            alice.send(0x03)
            alice.hear()
        response, body = pages.ask("/metrics")
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        found = metrics(body.decode())
        assert found["healthy",] == 1
        assert found["received_messages_total",] >= 2
        assert found["refused_total", "denied"] == 1
        assert found["sessions_closed_total", "0"] == 1
        assert 3 < found["open_files",] < found["max_open_files",]
        assert 0 <= found["longest_turn_seconds",] < 10


async def test_the_same_is_told_over_the_bus_to_keys_that_may_ask() -> None:
    with watched_broker(boss="operator", root="admin", alice="app") as (broker, pages):
        for name in ("boss", "root"):
            async with connect(broker.address, broker.keys[name]) as bus:
                varz = signals.unpack(await bus.request(signals.VARZ), signals.Varz)
                assert varz.sessions == 1
                assert varz.pid == broker.process.pid
                health = signals.unpack(await bus.request(signals.HEALTH), signals.Health)
                assert health == signals.Health(ok=True)
                told = signals.unpack(await bus.request(signals.METRICS), signals.Metrics)
                assert (
                    metrics(told.text).keys() == metrics(pages.ask("/metrics")[1].decode()).keys()
                )
                closed = signals.unpack(await bus.request(signals.CLOSED), signals.ClosedSessions)
                assert len(closed.sessions) == (name == "root")
        async with connect(broker.address, broker.keys["alice"]) as bus:
            for subject in (signals.VARZ, signals.HEALTH, signals.METRICS, signals.CLOSED):
                with pytest.raises(NotAuthorised, match="not allowed"):
                    await bus.request(subject)


async def test_an_observer_may_ask_all_that_the_pages_tell() -> None:
    with watched_broker(eye="observer") as (broker, _):
        async with connect(broker.address, broker.keys["eye"]) as bus:
            for subject in (signals.VARZ, signals.HEALTH, signals.METRICS, signals.CLOSED):
                assert await bus.request(subject)


# Health.


def test_an_access_list_that_could_not_be_read_again_is_told_until_one_could() -> None:
    with watched_broker(alice="app") as (broker, pages):
        path = broker.folder / "access.json"
        good = path.read_bytes()
        path.write_bytes(b"{")
        broker.signal(signal.SIGHUP)
        until(lambda: pages.ask("/healthz")[0].status == 503, "unhealthy")
        [problem] = json.loads(pages.ask("/healthz")[1])["problems"]
        assert problem.startswith("the access list was not reloaded: ")
        path.write_bytes(good)
        broker.signal(signal.SIGHUP)
        until(lambda: pages.ask("/healthz")[0].status == 200, "healthy again")


def test_open_files_that_run_out_are_told() -> None:
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(folder), alice="app")
        show_pages(broker, "127.0.0.1:0")
        broker.start()
        try:
            pages = pages_of(broker)
            used = metrics(pages.ask("/metrics")[1].decode())["open_files",]
            limit = int(used / 0.95)
            subprocess.run(
                ["prlimit", f"--nofile={limit}:", f"--pid={broker.process.pid}"], check=True
            )
            until(lambda: pages.ask("/healthz")[0].status == 503, "unhealthy")
            [problem] = json.loads(pages.ask("/healthz")[1])["problems"]
            assert f"of {limit} open files are in use" in problem
        finally:
            broker.stop()


def test_a_broker_that_is_stopped_answers_no_probe_and_is_well_afterwards() -> None:
    with watched_broker() as (broker, pages):
        assert pages.get("/healthz")["ok"]
        broker.signal(signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError):
                pages.ask("/healthz", timeout=1)
        finally:
            broker.signal(signal.SIGCONT)
        until(lambda: pages.ask("/healthz")[0].status == 200, "healthy again")


@contextmanager
def pages_without_a_loop() -> Iterator[tuple[Monitor, Pages, list[float]]]:
    """The pages of a broker whose loop hangs; the list tells when it was woken."""
    woken: list[float] = []
    monitor = Monitor(("127.0.0.1", 0), lambda: woken.append(time.monotonic()))
    monitor.start()
    try:
        yield monitor, Pages("127.0.0.1", int(monitor.url.rpartition(":")[2])), woken
    finally:
        monitor.close()


def watching() -> Watching:
    info = signals.BrokerInfo("tcp://127.0.0.1:1", from_bytes(bytes(32)), 1, "0", 1, 0)
    return Watching(Sessions(AccessList(), info, clock=time.time, limits=LIMITS))


def test_a_loop_that_does_not_answer_is_unhealthy_within_its_patience() -> None:
    with pages_without_a_loop() as (_, pages, woken):
        start = time.monotonic()
        response, body = pages.ask("/healthz")
        assert response.status == 503
        assert "has not answered for 2 s" in json.loads(body)["problems"][0]
        assert PATIENCE <= time.monotonic() - start < PATIENCE + 5
        assert pages.ask("/varz")[0].status == 503
        assert len(woken) == 2


def test_a_loop_that_answers_late_is_unhealthy() -> None:
    with pages_without_a_loop() as (monitor, pages, woken):

        def late_loop() -> None:
            until(lambda: woken, "a question")
            time.sleep(1.2)
            monitor.inbox.answer(watching())

        loop = threading.Thread(target=late_loop)
        loop.start()
        response, body = pages.ask("/healthz")
        loop.join()
        assert response.status == 503
        assert "s to answer" in json.loads(body)["problems"][0]


def test_however_many_ask_a_hanging_loop_is_asked_a_bounded_number_of_times() -> None:
    with pages_without_a_loop() as (monitor, pages, woken):
        paths = [p for p in EVERY_PAGE if p != "/"] * 8

        def ask(path: str) -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):  # others came after it
                pages.ask(path)

        askers = [threading.Thread(target=ask, args=(path,)) for path in paths]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        assert 1 <= len(woken) <= 2 * len(EVERY_PAGE)
        monitor.inbox.answer(watching())  # nobody waits for these: nothing happens


def test_many_readers_cost_the_loop_no_more_than_one() -> None:
    with watched_broker() as (_, pages):
        start = time.monotonic()
        told = {pages.ask("/varz")[1] for _ in range(20)}
        assert len(told) <= 2 + (time.monotonic() - start) / FRESH


# Who may see the pages, and how.


def test_without_the_key_there_are_no_pages_and_nothing_of_them_is_imported() -> None:
    code = (
        "import sys, bus.cli, bus.broker, bus.settings; "
        "print([m for m in ('prometheus_client', 'http.server', 'bus.monitor') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("address", "problem"),
    [("0.0.0.0:7601", "0.0.0.0 is not a loopback address"), ("192.168.1.5:80", "192.168.1.5 is not a"),
     ("[::]:7601", "is not a loopback address"), ("localhost:7601", "does not begin with an address"),
     ("127.0.0.1", "has no port"), ("127.0.0.1:x", "has no port"), ("127.0.0.1:65536", "has no port"),
     ("127.0.0.1:-1", "has no port"), (":7601", "does not begin with an address")],
)  # fmt: skip
def test_an_address_that_others_could_reach_is_refused_with_the_way_out(
    tmp_path: Path, address: str, problem: str
) -> None:
    broker = Broker(tmp_path)
    path = tmp_path / "broker.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "monitor": address}))
    result = subprocess.run(
        [sys.executable, "-P", "-m", "bus.cli", "run", str(broker.folder)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert result.returncode == 8
    assert f"{path}: monitor: " in result.stderr
    assert problem in result.stderr
    assert "write 127.0.0.1:PORT" in result.stderr


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        broker = Broker(tmp_path)
        show_pages(broker, address)
        result = subprocess.run(
            [sys.executable, "-P", "-m", "bus.cli", "run", str(broker.folder)],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert result.returncode == 9
        assert f"monitor: cannot listen on {address}: Address already in use" in result.stderr


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.5:80", "", "[::"]
)
def test_a_name_of_somebody_elses_is_turned_away(host: str) -> None:
    with watched_broker() as (_, pages):
        for page in EVERY_PAGE:
            response, body = pages.ask(page, Host=host)
            assert response.status == 403
            assert "Host header must name this machine" in json.loads(body)["error"]


def test_requests_without_a_host_or_with_two_are_turned_away() -> None:
    with watched_broker() as (_, pages):
        assert pages.say(b"GET /varz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 403 ")
        two = b"GET /varz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
        assert pages.say(two).startswith(b"HTTP/1.0 403 ")
        whole = b"GET http://evil.example/varz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert pages.say(whole).startswith(b"HTTP/1.0 404 ")


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:1", "LOCALHOST:80", "[::1]:9", "127.0.0.1"]
)
def test_names_of_this_machine_are_fine_through_any_port(host: str) -> None:
    with watched_broker() as (_, pages):
        assert pages.ask("/healthz", Host=host)[0].status == 200


def test_head_gives_the_same_without_the_body() -> None:
    with watched_broker() as (_, pages):
        for page in EVERY_PAGE:
            response, body = pages.ask(page, "HEAD")
            assert (response.status, body) == (200, b"")
            assert int(response.headers["Content-Length"]) > 0
            assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_nothing_but_reading_is_possible(method: str) -> None:
    with watched_broker() as (_, pages):
        response, body = pages.ask("/sessions", method)
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
        assert json.loads(body) == {"error": "pages are read with GET or HEAD"}


@pytest.mark.parametrize(
    ("path", "status"),
    [("/nothing", 404), ("/varz/", 404), ("/../varz", 404), ("/sessions?limit=-1", 400),
     ("/sessions?limit=10001", 400), ("/sessions?offset=x", 400), ("/sessions?limit=1&offset=5", 200),
     ("/sessions?" + "a=1&" * 3000, 200), ("/varz?x", 200)],
)  # fmt: skip
def test_wrong_paths_and_queries_are_told(path: str, status: int) -> None:
    with watched_broker() as (_, pages):
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
    [b"\x00" * 64, b"\x16\x03\x01\x02\x00\x01\x00" + b"\xff" * 60, b"\r\n\r\n", b"GET\r\n\r\n",
     b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nHost\r\n\r\n", b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\nTransfer-Encoding: chunked\r\n\r\nzz"],
)  # fmt: skip
def test_what_is_not_http_is_hung_up_on(said: bytes) -> None:
    with calm_bus() as (_, pages, _):
        pages.say(said)


def test_a_body_is_not_read() -> None:
    with calm_bus() as (_, pages, _):
        said = b"POST /varz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{'a': 1}"
        assert pages.say(said).startswith(b"HTTP/1.0 405 ")


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
