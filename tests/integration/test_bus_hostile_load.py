"""Floods and bombs against the real broker: each states what the broker's memory may grow by meanwhile."""

import contextlib
import json
import signal
import socket
import time

import msgpack
import pytest
import zmq

from bus import keystore
from tests.support.attack import (
    MIB,
    Crowd,
    Wire,
    attack,
    descriptors,
    mallory,
    reader,
    told_and_cut,
    undisturbed,
)
from tests.support.broker import until
from tests.support.raw import (
    DELIVERY,
    ERROR,
    GAP,
    HELLO,
    OK,
    PONG,
    PUBLISH,
    REPLY,
    REPLY_DELIVERY,
    REQUEST,
    REQUEST_DELIVERY,
    SERVE,
    SUBSCRIBE,
    Raw,
)

CREDIT = 0x18
MAX_WINDOW = 1 << 20
SUBSCRIPTIONS = 1024  # of one session
INFLIGHT = 1024  # requests of one session
GOOD = {"id": 1, "sid": 1, "s": "topic.x"}


# Before a session.


def test_a_flood_of_strangers_is_refused_one_by_one() -> None:
    """The bound: 16 MiB for 300 handshakes at once."""
    with attack(16 * MIB) as (broker, alice):
        before = descriptors(broker)
        stranger = keystore.create(broker.folder / "stranger.key")
        with Crowd(broker.address, stranger, 299), Raw(broker.address, stranger) as last:
            assert last.event(zmq.EVENT_HANDSHAKE_FAILED_AUTH) == 400
            assert undisturbed(broker, alice)
        until(lambda: descriptors(broker) <= before, "no descriptor stays")


def test_connections_of_an_admitted_key_that_never_say_hello_are_cut() -> None:
    """The bound: 20 MiB for 200 connections that are encrypted and idle."""
    with attack(20 * MIB) as (broker, alice):
        before = descriptors(broker)
        with Crowd(broker.address, broker.keys["mallory"], 200):
            until(lambda: descriptors(broker) >= before + 200, "all are let in")
            assert undisturbed(broker, alice)
            until(lambda: descriptors(broker) <= before, "all are cut", patience=40)


@pytest.mark.parametrize(
    "said",
    [b"", b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(47)],
    ids=["nothing", "a greeting"],
)
def test_tcp_connections_that_stop_in_the_handshake_are_cut(said: bytes) -> None:
    """The bound: 12 MiB for 300 of them."""
    with attack(12 * MIB) as (broker, alice):
        before = descriptors(broker)
        host, port = broker.address.endpoint.removeprefix("tcp://").split(":")
        half = [socket.create_connection((host, int(port))) for _ in range(300)]
        try:
            for tcp in half:
                tcp.sendall(said)
            until(lambda: descriptors(broker) >= before + 300, "all are accepted")
            assert undisturbed(broker, alice)
            until(lambda: descriptors(broker) <= before, "all are cut", patience=40)
        finally:
            for tcp in half:
                tcp.close()


def test_sessions_whose_wire_was_cut_in_silence_end_and_free_what_they_held() -> None:
    """The bound: 16 MiB for 20 of them that are published 1 MiB each while nobody knows yet."""
    with attack(16 * MIB) as (broker, alice), Wire(broker.address) as wire:
        before = descriptors(broker)
        alice.send(SUBSCRIBE, {"id": 2, "sid": 2, "s": "$SYS.presence.*"})
        alice.hear_only(OK)
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                raw = stack.enter_context(Raw(wire.address, broker.keys["mallory"]))
                raw.hello()
                raw.send(SUBSCRIBE, {"id": 1, "sid": 9, "s": "topic.lost"})
                raw.hear_only(OK)
            assert msgpack.unpackb(alice.hear()[2])["state"] == "online"
            wire.break_silently()
            for _ in range(64):
                alice.send(PUBLISH, {"s": "topic.lost"}, bytes(16 << 10))
            assert undisturbed(broker, alice)
            code, fields, body = alice.hear(45)
            assert (code, fields["sid"]) == (DELIVERY, 2)
            assert msgpack.unpackb(body)["state"] == "offline"
            until(lambda: descriptors(broker) <= before, "no descriptor stays")


# Floods of commands.


def test_11_mib_of_denied_subscriptions_are_all_answered_and_leave_nothing() -> None:
    """The bound: 48 MiB, most of it answers that are not read until all was said."""
    with attack(48 * MIB) as (broker, alice), mallory(broker) as raw:
        raw.hello()
        pattern = "mesh." + "x" * 195
        fields = [{"id": n, "sid": n, "s": f"{pattern}{n:05}"} for n in range(52_000)]
        heads = [b"SB\x01\x12" + msgpack.packb(one) for one in fields]
        assert sum(map(len, heads)) > 11 * MIB
        for one in heads:
            raw.socket.send(one)
        assert undisturbed(broker, alice)
        for number in range(len(heads)):
            error = raw.hear_only(ERROR)
            assert (error["num"], error["err"], error["ref"]) == (403, "denied", number)
        assert raw.alive()
        raw.send(SUBSCRIBE, GOOD)
        raw.hear_only(OK)


def test_subscriptions_and_services_beyond_the_limit_are_refused_and_the_rest_works() -> None:
    """The bound: 32 MiB for eight sessions with all that they may have."""
    with attack(32 * MIB) as (broker, alice), contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(mallory(broker)) for _ in range(8)]
        for number, raw in enumerate(sessions):
            raw.hello()
            for n in range(SUBSCRIPTIONS + 50):
                raw.send(SUBSCRIBE, {"id": n, "sid": n, "s": f"topic.{number}.*.{n}.>"})
            refs = [raw.hear_only(OK)["ref"] for _ in range(SUBSCRIPTIONS)]
            assert refs == list(range(SUBSCRIPTIONS))
            for n in range(SUBSCRIPTIONS, SUBSCRIPTIONS + 50):
                error = raw.hear_only(ERROR)
                assert (error["num"], error["err"], error["ref"]) == (429, "limit", n)
            for n in range(SUBSCRIPTIONS + 1):
                raw.send(SERVE, {"id": n, "s": f"app.{number}.{n}"})
            for _ in range(SUBSCRIPTIONS):
                raw.hear_only(OK)
            assert raw.hear_only(ERROR)["err"] == "limit"
            assert undisturbed(broker, alice)
        alice.send(PUBLISH, {"s": "topic.7.any.1023.more"}, b"found")
        assert sessions[7].hear()[2] == b"found"


def test_subscribing_and_unsubscribing_without_end_leaves_nothing_behind() -> None:
    """The bound: 8 MiB for 20,000 of each."""
    with attack(8 * MIB) as (broker, alice), mallory(broker) as raw:
        raw.hello()
        for n in range(20_000):
            raw.send(SUBSCRIBE, {"id": n, "sid": n, "s": f"topic.{n}.>"})
            raw.hear_only(OK)
            raw.send(0x13, {"id": n, "sid": n})
            raw.hear_only(OK)
        assert undisturbed(broker, alice)


def test_requests_beyond_the_limit_are_refused_and_none_is_forgotten() -> None:
    """The bound: 8 MiB for 1,024 requests that nobody answers and 4,000 that are refused."""
    with attack(8 * MIB) as (broker, alice), mallory(broker) as raw, mallory(broker) as lazy:
        lazy.hello()
        lazy.send(SERVE, {"id": 1, "s": "app.lazy"})
        lazy.hear_only(OK)
        raw.hello()
        for n in range(5024):
            raw.send(REQUEST, {"id": n, "s": "app.lazy", "dl": 4000}, bytes(1000))
        assert undisturbed(broker, alice)
        errors = [raw.hear_only(ERROR) for _ in range(5024)]
        refused = [error for error in errors if error["err"] == "limit"]
        overdue = [error for error in errors if error["err"] == "deadline"]
        assert {error["num"] for error in refused} == {429}
        assert {error["num"] for error in overdue} == {408}
        assert len(overdue) == INFLIGHT
        assert len(refused) == 4000
        assert {error["ref"] for error in errors} == set(range(5024))
        assert raw.alive()


def test_a_denied_flood_is_told_to_operators_once_a_second_and_adds_up() -> None:
    """The bound: 8 MiB for 20,000 refusals."""
    with attack(8 * MIB) as (broker, alice), mallory(broker) as raw:
        alice.send(SUBSCRIBE, {"id": 2, "sid": 2, "s": "$SYS.event.denied"})
        alice.hear_only(OK)
        raw.hello()
        start = time.monotonic()
        for n in range(20_000):
            raw.send(PUBLISH, {"s": "mesh.x", "id": n})
        for _ in range(20_000):
            assert raw.hear_only(ERROR)["err"] == "denied"
        told = events = 0
        while told < 20_000:
            code, fields, body = alice.hear()
            assert (code, fields["sid"]) == (DELIVERY, 2)
            event = msgpack.unpackb(body)
            assert event["key"] == broker.keys["mallory"].public
            told, events = told + event.get("count", 1), events + 1
        assert told == 20_000
        assert events <= 3 + (time.monotonic() - start)


def test_a_hello_said_again_and_again_is_refused_and_changes_nothing() -> None:
    """The bound: 8 MiB for 10,000 of them."""
    with attack(8 * MIB) as (broker, alice), mallory(broker) as raw:
        session = raw.hello(name="first")["session"]
        for _ in range(10_000):
            raw.send(HELLO, {"name": "again"})
        for _ in range(10_000):
            error = raw.hear_only(ERROR)
            assert (error["num"], error["err"]) == (409, "conflict")
        alice.send(REQUEST, {"id": 1, "s": "$SYS.sessions", "dl": 5000})
        code, _, body = alice.hear()
        assert code == REPLY_DELIVERY
        found = [s for s in msgpack.unpackb(body)["sessions"] if s["session"] == session]
        assert [s["name"] for s in found] == ["first"]


def test_replies_to_requests_of_others_are_refused_and_reach_nobody() -> None:
    """The bound: 8 MiB. Every handle around the one that waits is tried."""
    with attack(8 * MIB) as (broker, alice), mallory(broker) as raw, mallory(broker) as worker:
        for session in (raw, worker):
            session.hello()
        worker.send(SERVE, {"id": 1, "s": "app.work"})
        worker.hear_only(OK)
        alice.send(REQUEST, {"id": 1, "s": "app.work", "dl": 30_000})
        handle = worker.hear_only(REQUEST_DELIVERY)["r"]
        tried = range(max(0, handle - 500), handle + 500)
        for guess in tried:
            raw.send(REPLY, {"r": guess}, b"forged")
        for _ in tried:
            error = raw.hear_only(ERROR)
            assert (error["num"], error["err"]) == (404, "no_request")
        worker.send(REPLY, {"r": handle}, b"true")
        code, fields, body = alice.hear()
        assert (code, fields["ref"], body) == (REPLY_DELIVERY, 1, b"true")
        worker.send(REPLY, {"r": handle}, b"once more")
        assert worker.hear_only(ERROR)["err"] == "no_request"


# Credit and readers.


def test_credit_without_measure_overflows_nothing() -> None:
    """The bound: 8 MiB for 20,000 grants of the most there is."""
    with attack(8 * MIB) as (broker, alice), mallory(broker) as raw:
        raw.hello(caps=["credit"], credit={"m": 1, "b": 1})
        raw.send(SUBSCRIBE, GOOD)
        raw.hear_only(OK)
        for _ in range(20_000):
            raw.send(CREDIT, {"m": MAX_WINDOW, "b": 2**63 - 1})
        assert raw.alive()
        for n in range(1000):
            alice.send(PUBLISH, {"s": "topic.x"}, str(n).encode())
        assert [raw.hear()[2] for _ in range(1000)] == [str(n).encode() for n in range(1000)]
        raw.send(CREDIT, {"m": MAX_WINDOW + 1})
        assert told_and_cut(raw, 400, "bad_frame")


def test_a_session_that_grants_nothing_costs_a_bounded_queue_and_holds_up_nobody() -> None:
    """The bound: 90 MiB, of which 64 MiB are the queue of one session; 128 MiB are published."""
    with attack(90 * MIB) as (broker, alice), mallory(broker) as raw:
        raw.hello(caps=["credit"], credit={})
        raw.send(SUBSCRIBE, GOOD)
        raw.hear_only(OK)
        for number in range(8192):
            alice.send(PUBLISH, {"s": "topic.x"}, bytes(16 << 10))
            if number % 1000 == 0:
                assert undisturbed(broker, alice)
        raw.send(0x02, {"t": 4711})
        lost = 0
        while (heard := raw.hear())[0] == GAP:
            lost += heard[1]["lost"]
        assert heard[:2] == (PONG, {"t": 4711, "epoch": heard[1]["epoch"]})
        assert 0 < lost < 8192
        raw.send(CREDIT, {"m": 8192, "b": 128 * MIB})
        waited = 0
        while lost + waited < 8192:
            code, fields, _ = raw.hear()
            assert code in {DELIVERY, GAP}
            lost, waited = lost + fields.get("lost", 0), waited + (code == DELIVERY)
        assert lost + waited == 8192
        assert raw.alive()


def test_a_reader_that_was_stopped_loses_the_oldest_and_is_told_how_many() -> None:
    """The bound: 110 MiB as for one that never reads: a queue of 64 MiB, and what libzmq holds."""
    count, body = 8192, bytes(16 << 10)  # 128 MiB
    with (
        attack(110 * MIB) as (broker, alice),
        reader(broker, "mallory", "topic.flood", count) as process,
    ):
        assert process.stdout is not None
        process.send_signal(signal.SIGSTOP)
        try:
            for number in range(count):
                alice.send(PUBLISH, {"s": "topic.flood"}, body)
                if number % 1000 == 0:
                    assert undisturbed(broker, alice)
            assert undisturbed(broker, alice)
        finally:
            process.send_signal(signal.SIGCONT)
        heard, lost = json.loads(process.stdout.readline())
        assert heard + lost == count
        assert 0 < lost < count
