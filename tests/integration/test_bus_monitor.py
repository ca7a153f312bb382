"""The broker's pages over HTTP and the same over the bus, against the real broker; and its health."""

import asyncio
import contextlib
import http.client
import json
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bus import NotAuthorised, connect, signals
from bus.access import AccessList
from bus.identity import from_bytes
from bus.monitor import FRESH, PATIENCE, Monitor
from bus.routing.sessions import LIMITS, Sessions
from bus.routing.watching import Sources, Watching
from tests.support.broker import Broker, until
from tests.support.raw import ERROR, OK, PUBLISH, SUBSCRIBE, Raw
from tests.support.watched import EVERY_PAGE, Pages, pages_of, show_pages, watched_broker


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
        assert pages.get("/sessions?key=nobody") == {"sessions": [], "left": 0}
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
                await asyncio.sleep(FRESH)  # the pages may tell what was true so long ago
                assert metrics(told.text).keys() == metrics(pages.text("/metrics")).keys()
                closed = signals.unpack(await bus.request(signals.CLOSED), signals.ClosedSessions)
                assert len(closed.sessions) == (name == "root")
        async with connect(broker.address, broker.keys["alice"]) as bus:
            for subject in (signals.VARZ, signals.HEALTH, signals.METRICS, signals.CLOSED):
                with pytest.raises(NotAuthorised, match="not allowed"):
                    await bus.request(subject)


async def test_durable_topics_are_told_on_the_page_over_the_bus_and_in_metrics() -> None:
    with watched_broker(boss="operator") as (broker, pages):
        async with connect(broker.address, broker.keys["boss"]) as bus:
            topic = signals.TopicConfig("jobs", ["app.jobs.>"])
            await bus.request(signals.TOPIC_PUT, signals.pack(topic))
            for _ in range(3):
                await bus.store("app.jobs.new", bytes(100))
            told = signals.unpack(await bus.request(signals.TOPICS), signals.Topics)
        until(lambda: pages.get("/topics") == msgspec.to_builtins(told), "the page tells the same")
        [info] = pages.get("/topics")["topics"]
        assert (info["config"]["topic"], info["first"], info["last"]) == ("jobs", 1, 3)
        assert pages.get("/varz")["topics"] == 1
        found = metrics(pages.text("/metrics"))
        assert found["topic_messages", "jobs"] == found["topic_last_sequence", "jobs"] == 3
        assert found["topic_bytes", "jobs"] >= 300


async def test_services_are_told_with_what_they_did() -> None:
    with watched_broker(boss="operator") as (broker, pages):
        async with connect(broker.address, broker.keys["boss"]) as bus:
            await bus.serve("app.echo", lambda request: request.body, name="echo", version="1.2")
            for _ in range(5):
                await bus.request("app.echo", b"x")

            def echoes() -> int:
                found = [s for s in pages.get("/services")["services"] if s["name"] == "echo"]
                return sum(service["requests"] for service in found)

            await asyncio.to_thread(until, lambda: echoes() == 5, "five requests are told")
        until(lambda: echoes() == 0, "the service is gone with its session")


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
            limits = set()

            def told() -> list[str]:
                used = metrics(pages.text("/metrics"))["open_files",]
                limits.add(limit := int(used / 0.95))
                subprocess.run(
                    ["prlimit", f"--nofile={limit}:", f"--pid={broker.process.pid}"], check=True
                )
                return list(json.loads(pages.ask("/healthz")[1])["problems"])

            until(told, "unhealthy")
            assert pages.ask("/healthz")[0].status == 503
            [problem] = told()
            assert any(f"of {limit} open files are in use" in problem for limit in limits)
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
    return Watching(Sessions(AccessList(), info, clock=time.time, limits=LIMITS), Sources())


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
