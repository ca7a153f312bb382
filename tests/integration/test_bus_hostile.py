"""Hostile peers against the real broker: it stays up, others notice nothing, the offender is told."""

import contextlib
import os
import socket
import time
from contextlib import AbstractContextManager
from typing import Any

import msgpack
import pytest
import zmq

from tests.support.attack import bystander, told_and_cut
from tests.support.broker import Broker, running_broker
from tests.support.raw import (
    DELIVERY,
    ERROR,
    GAP,
    HELLO,
    OK,
    PING,
    PUBLISH,
    REPLY,
    REPLY_DELIVERY,
    REQUEST,
    REQUEST_DELIVERY,
    SERVE,
    SUBSCRIBE,
    WELCOME,
    Raw,
    routing_id,
)

MIB = 1 << 20
REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH
FAILED = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


def under_attack() -> AbstractContextManager[tuple[Broker, Raw]]:
    return bystander(alice="app", mallory="app")


def mallory(broker: Broker, **options: Any) -> Raw:
    return Raw(broker.address, broker.keys["mallory"], **options)


@pytest.mark.parametrize(
    ("frames", "num", "err"),
    [([b"\xde\xad\xbe\xef" * 5], 400, "bad_frame"), ([b""], 400, "bad_frame"), ([b"", b""], 400, "bad_frame"),
     ([b"SB\x02\x02\x80"], 426, "version"), ([b"SB\x01\x02"], 400, "bad_frame"),
     ([b"SB\x01\x02\x80", b"x", b"y"], 400, "bad_frame"),
     ([b"SB\x01\x02\x81\xa1x" + b"\x91" * 4000], 400, "bad_frame"),
     ([b"SB\x01\x02" + bytes(5000)], 413, "too_large"),
     ([b"SB\x01\x02\x80"] * 60_000, 400, "bad_frame")],
    ids=["random bytes", "empty", "two empty", "version 2", "truncated", "three frames", "depth bomb",
         "large head", "60000 frames"],
)  # fmt: skip
def test_what_is_not_sb1_is_told_and_cut(frames: list[bytes], num: int, err: str) -> None:
    with under_attack() as (broker, _), mallory(broker) as raw:
        raw.hello()
        raw.socket.send_multipart(frames)
        assert told_and_cut(raw, num, err)


@pytest.mark.parametrize(
    ("frames", "err"),
    [([b"\xde\xad\xbe\xef"], "bad_frame"), ([b"SB\x02\x01\x80"], "version"),
     ([b"SB\x01\x01\x80", b"", b""], "bad_frame"), ([b"SB\x01\x01" + bytes(9000)], "too_large")],
)  # fmt: skip
def test_what_is_not_sb1_instead_of_hello_is_told_and_cut(frames: list[bytes], err: str) -> None:
    with under_attack() as (broker, _), mallory(broker) as raw:
        raw.socket.send_multipart(frames)
        assert raw.hear_only(ERROR)["err"] == err
        assert raw.is_cut()


def test_a_thousand_random_messages_leave_no_trace() -> None:
    with under_attack() as (broker, alice):
        for _ in range(20):
            with mallory(broker) as raw:
                raw.hello()
                for _ in range(50):
                    raw.socket.send(b"SB\x01" + os.urandom(40))
                assert raw.hear()[0] in {ERROR, 0x82, 0x84}
        assert alice.alive()


def test_a_body_over_the_limit_is_refused_and_the_session_goes_on() -> None:
    with under_attack() as (broker, _), mallory(broker) as raw:
        limit = raw.hello()["limits"]["payload"]
        raw.send(PUBLISH, {"s": "topic.x", "id": 5}, bytes(limit + 1))
        error = raw.hear_only(ERROR)
        assert (error["num"], error["err"], error["ref"]) == (413, "too_large", 5)
        raw.send(PUBLISH, {"s": "topic.x", "id": 6}, bytes(limit))
        assert raw.hear_only(OK) == {"ref": 6}


def test_a_message_over_the_transports_limit_cuts_the_connection() -> None:
    with under_attack() as (broker, _), mallory(broker) as raw:
        raw.hello()
        raw.send(PUBLISH, {"s": "topic.x"}, bytes(2 * MIB))
        assert raw.is_cut()


def test_a_routing_id_chosen_by_libzmq_is_refused_with_the_way_out() -> None:
    with under_attack() as (broker, _), mallory(broker, rid=None) as raw:
        raw.send(HELLO)
        error = raw.hear_only(ERROR)
        assert (error["num"], error["err"]) == (400, "bad_routing_id")
        assert "0x01 and 16 random bytes" in error["msg"]
        assert raw.is_cut()


def test_a_stolen_routing_id_ends_the_session_it_came_from_and_cuts_the_thief() -> None:
    with under_attack() as (broker, _):
        rid = routing_id()
        with mallory(broker, rid=rid) as victim:
            victim.hello()
            thief = Raw(broker.address, broker.keys["alice"], rid)
            with thief:
                thief.send(HELLO)
                assert thief.is_cut()
                assert victim.is_cut()
        with mallory(broker) as again:
            again.hello()


def test_a_routing_id_used_again_by_its_own_key_needs_a_new_hello() -> None:
    with under_attack() as (broker, _):
        rid = routing_id()
        with mallory(broker, rid=rid) as first:
            first.hello()
            with mallory(broker, rid=rid) as second:
                second.send(PING)
                assert second.hear_only(ERROR)["err"] == "hello_first"
                assert first.is_cut()
                second.hello()
                assert second.alive()


def test_a_key_that_is_not_allowed_never_gets_in() -> None:
    with under_attack() as (broker, _):
        broker.forbid("mallory")
        broker.reload()
        with mallory(broker) as raw:
            raw.send(HELLO)
            assert raw.event(REFUSED) == 400
            assert raw.silent(0.1)


def test_a_client_without_curve_never_gets_in() -> None:
    with under_attack() as (broker, _), Raw(broker.address, None) as raw:
        raw.send(HELLO)
        raw.event(FAILED, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_DISCONNECTED)
        assert raw.silent(0.1)


def test_a_client_that_expects_another_broker_never_gets_in() -> None:
    with under_attack() as (broker, _):
        elsewhere = type(broker.address)(broker.address.endpoint, broker.keys["alice"].public)
        with Raw(elsewhere, broker.keys["mallory"]) as raw:
            raw.send(HELLO)
            assert raw.silent(0.5)


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64, os.urandom(4096), b"\xff" + b"\x00" * 8 + b"\x7f"],
)
def test_plain_tcp_garbage_is_hung_up_on(said: bytes) -> None:
    with under_attack() as (broker, _):
        host, port = broker.address.endpoint.removeprefix("tcp://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as tcp:
            tcp.sendall(said)
            deadline = time.monotonic() + 10
            with contextlib.suppress(ConnectionResetError):
                while tcp.recv(4096):
                    assert time.monotonic() < deadline


def test_many_connections_that_say_nothing_hold_up_nobody() -> None:
    with under_attack() as (broker, alice):
        host, port = broker.address.endpoint.removeprefix("tcp://").split(":")
        mute = [socket.create_connection((host, int(port))) for _ in range(300)]
        for _ in range(50):
            assert alice.alive()
        for tcp in mute:
            tcp.close()


def test_metadata_that_a_client_makes_up_changes_nothing() -> None:
    with under_attack() as (broker, _):
        metadata = 95  # ZMQ_METADATA
        forged = {metadata: b"X-Role:admin"}
        with mallory(broker, options=forged) as raw:
            welcome = raw.hello(name="alice", key=broker.keys["alice"].public, roles=["admin"])
            assert (welcome["key"], welcome["roles"]) == (broker.keys["mallory"].public, ["app"])
            raw.send(0x14, {"id": 1, "s": "$SYS.access.list", "dl": 1000, "from": "x"})
            assert raw.hear_only(ERROR)["err"] == "denied"


def test_floods_of_refused_commands_hold_up_nobody() -> None:
    with under_attack() as (broker, alice), mallory(broker) as raw:
        raw.hello()
        for _ in range(5000):
            raw.send(PUBLISH, {"s": "mesh.x"})
        assert alice.alive()


def test_a_subscriber_that_never_reads_costs_a_bounded_queue_and_nobody_else() -> None:
    """The bound of one session: 64 MiB queued, and 256 messages inside libzmq (here 16 KiB each)."""
    size, count = 16 << 10, 12_000  # 188 MiB in all
    small_buffers = {zmq.RCVHWM: 1, zmq.RCVBUF: 64 << 10}
    with under_attack() as (broker, alice), mallory(broker, options=small_buffers) as deaf:
        deaf.hello()
        deaf.send(SUBSCRIBE, {"id": 1, "sid": 9, "s": "topic.flood"})
        deaf.hear_only(OK)
        before = broker.rss
        body = bytes(size)
        for number in range(count):
            alice.send(PUBLISH, {"s": "topic.flood"}, body)
            if number % 500 == 0:
                assert alice.alive()
        assert alice.alive()
        assert broker.rss - before < 110 * MIB
        told = heard = 0
        while told + heard < count:
            code, fields, _ = deaf.hear()
            if code == GAP:
                assert fields["sid"] == 9
                told += fields["lost"]
            else:
                assert code == DELIVERY
                heard += 1
        assert told + heard == count
        assert told > count / 3
        assert deaf.alive()


def test_a_peer_that_never_reads_its_answers_is_cut() -> None:
    """The bound of small messages: 524,288 of them, about 200 bytes of memory each."""
    options = {zmq.RCVHWM: 1, zmq.RCVBUF: 4096, zmq.SNDTIMEO: 1000}
    with (
        running_broker(alice="operator", mallory="app") as broker,
        Raw(broker.address, broker.keys["alice"]) as alice,
        mallory(broker, options=options) as deaf,
    ):
        deaf.hello()
        alice.hello()
        alice.send(SUBSCRIBE, {"id": 1, "sid": 1, "s": "$SYS.presence.*"})
        alice.hear_only(OK)
        before = broker.rss
        head = b"SB\x01\x02" + msgpack.packb({"t": 2**62})
        with contextlib.suppress(zmq.Again):
            for _ in range(1_000_000):
                deaf.socket.send(head)
        _, fields, body = alice.hear()
        assert fields["sid"] == 1
        offline = msgpack.unpackb(body)
        assert (offline["key"], offline["state"]) == (broker.keys["mallory"].public, "offline")
        assert offline["reason"].startswith("too slow")
        assert broker.peak_rss - before < 200 * MIB


def test_the_last_words_of_a_peer_that_hangs_up_are_heard() -> None:
    with under_attack() as (broker, alice):
        for number in range(20):
            with mallory(broker, options={zmq.LINGER: 1000}) as hasty:
                hasty.hello()
                subject = f"app.hasty.{number}"
                hasty.send(SERVE, {"id": 1, "s": subject})
                hasty.hear_only(OK)
                alice.send(REQUEST, {"id": number, "s": subject, "dl": 5000})
                handle = hasty.hear_only(REQUEST_DELIVERY)["r"]
                hasty.send(REPLY, {"r": handle}, b"done")
                hasty.hang_up()
            code, fields, body = alice.hear()
            assert (code, fields["ref"], body) == (REPLY_DELIVERY, number, b"done")


def test_a_session_is_welcome_right_after_an_attack_by_the_same_key() -> None:
    with under_attack() as (broker, _):
        with mallory(broker) as raw:
            raw.hello()
            raw.socket.send(b"bad")
            assert told_and_cut(raw, 400, "bad_frame")
        with mallory(broker) as raw:
            raw.send(HELLO)
            assert raw.hear()[0] == WELCOME
