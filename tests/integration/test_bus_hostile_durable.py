"""Hostile peers at a durable topic: bounded memory, nobody else's records, nobody held up."""

from typing import Any

import zmq

from bus import signals
from tests.support.attack import MIB, attack, mallory, undisturbed
from tests.support.broker import Broker, until
from tests.support.raw import ERROR, OK, PUBLISH, REPLY_DELIVERY, REQUEST, Raw

PULL, SETTLE, READ, RECORD = 0x20, 0x21, 0x22, 0x92
WAITING = 256  # PULLs and READs of one session that are not answered yet


def ask(peer: Raw, subject: str, value: object) -> tuple[int, dict[str, Any]]:
    peer.send(REQUEST, {"id": 99, "s": subject, "dl": 20_000}, signals.pack(value))
    return peer.hear()[:2]


def sessions_of(operator: Raw, key: str) -> list[signals.SessionInfo]:
    operator.send(
        REQUEST, {"id": 98, "s": signals.SESSIONS, "dl": 20_000}, signals.pack({"key": key})
    )
    return signals.unpack(operator.hear()[2], signals.Sessions).sessions


def topic(operator: Raw, name: str, *subjects: str) -> None:
    """Make a topic with a consumer `c`."""
    assert (
        ask(operator, signals.TOPIC_PUT, signals.TopicConfig(name, list(subjects)))[0]
        == REPLY_DELIVERY
    )
    assert (
        ask(operator, signals.CONSUMER_PUT, signals.ConsumerConfig(name, "c"))[0] == REPLY_DELIVERY
    )


def store(peer: Raw, subject: str, body: bytes, **fields: Any) -> dict[str, Any]:
    peer.send(PUBLISH, {"s": subject, "id": 5, **fields}, body)
    return peer.hear_only(OK)


def stingy(broker: Broker) -> Raw:
    """An attacker whose machine takes next to nothing."""
    return Raw(broker.address, broker.keys["mallory"], options={zmq.RCVHWM: 1, zmq.RCVBUF: 4096})


def test_reads_whose_answers_nobody_takes_are_bounded_and_end_the_session() -> None:
    """The bound: 240 MiB. Its queue of 64 MiB, as much in libzmq, pages under way, SQLite's cache."""
    with attack(240 * MIB) as (broker, alice):
        topic(alice, "big", "topic.big")
        for _ in range(64):
            store(alice, "topic.big", bytes(MIB - 100))
        with stingy(broker) as raw:
            raw.hello(caps=["durable"])
            for number in range(2 * WAITING):
                raw.send(READ, {"id": number, "topic": "big", "seq": 1, "n": 256})
            for _ in range(20):
                assert undisturbed(broker, alice)
            until(lambda: not sessions_of(alice, broker.keys["mallory"].public), "mallory is out")


def test_pulls_beyond_the_limit_are_refused_and_the_rest_is_answered() -> None:
    with attack(50 * MIB) as (broker, alice):
        topic(alice, "jobs", "topic.job")
        with mallory(broker) as raw:
            raw.hello(caps=["durable"])
            for number in range(WAITING + 50):
                raw.send(PULL, {"id": number, "topic": "jobs", "consumer": "c", "wait": 60_000})
            for number in range(WAITING, WAITING + 50):
                error = raw.hear_only(ERROR)
                assert (error["num"], error["err"], error["ref"]) == (429, "limit", number)
            assert undisturbed(broker, alice)
            for number in range(3):
                store(alice, "topic.job", b"%d" % number)
                code, record, body = raw.hear()
                assert (code, record["ref"], body) == (RECORD, number, b"%d" % number)
                assert raw.hear_only(OK)["ref"] == number


def test_settling_what_is_not_in_flight_is_answered_and_changes_nothing() -> None:
    with attack(50 * MIB) as (broker, alice):
        topic(alice, "jobs", "topic.job")
        store(alice, "topic.job", b"work")
        with mallory(broker) as raw:
            raw.hello(caps=["durable"])
            for number in range(300):
                settle = {
                    "topic": "jobs",
                    "consumer": "c",
                    "act": ("ack", "nak", "wip", "term")[number % 4],
                }
                raw.send(SETTLE, {**settle, "id": number, "seqs": [*range(256)]})
            assert [raw.hear_only(OK)["ref"] for _ in range(300)] == [*range(300)]
            raw.send(
                SETTLE,
                {"topic": "jobs", "consumer": "c", "seqs": [2**63 - 1], "act": "burn", "id": 7},
            )
            error = raw.hear_only(ERROR)
            assert (error["num"], error["err"]) == (400, "bad_request")
            raw.send(PULL, {"id": 8, "topic": "jobs", "consumer": "c"})
            code, record, body = raw.hear()
            assert (code, record["seq"], record["dlv"], body) == (RECORD, 1, 1, b"work")


def test_who_may_not_subscribe_gets_nothing_out_of_a_topic_or_its_consumers() -> None:
    with attack(50 * MIB) as (broker, alice):
        topic(alice, "secret", "node.secret", "topic.open")
        store(alice, "node.secret", b"secret")
        with mallory(broker) as raw:
            raw.hello(caps=["durable"])
            for code, fields in [
                (READ, {"id": 1, "topic": "secret"}),
                (PULL, {"id": 1, "topic": "secret", "consumer": "c"}),
                (SETTLE, {"id": 1, "topic": "secret", "consumer": "c", "seqs": [1]}),
            ]:
                raw.send(code, fields)
                error = raw.hear_only(ERROR)
                assert (error["num"], error["err"], error["ref"]) == (403, "denied", 1)
            for subject, value in [
                (signals.CONSUMER_PUT, signals.ConsumerConfig("secret", "mine")),
                (signals.CONSUMER_REMOVE, signals.ConsumerName("secret", "c")),
                (signals.TOPIC_PUT, signals.TopicConfig("mine", ["topic.mine"])),
                (signals.TOPIC_REMOVE, signals.TopicName("secret")),
            ]:
                code, error = ask(raw, subject, value)
                assert (code, error["num"]) == (ERROR, 403), subject
            # What it may hear of the topic it gets by a filter of its own, and nothing else.
            config = signals.ConsumerConfig("secret", "open", filter="topic.open")
            assert ask(raw, signals.CONSUMER_PUT, config)[0] == REPLY_DELIVERY
            store(alice, "topic.open", b"open")
            raw.send(PULL, {"id": 2, "topic": "secret", "consumer": "open", "n": 256})
            assert raw.hear()[2] == b"open"
            raw.hear_only(OK)


def test_a_message_id_is_remembered_for_each_publisher() -> None:
    """Nobody keeps out another's message by using its id first."""
    with attack(50 * MIB) as (broker, alice):
        topic(alice, "jobs", "topic.job")
        with mallory(broker) as raw:
            raw.hello(caps=["durable"])
            assert store(raw, "topic.job", b"forged", mid="order-1") == {"ref": 5, "seq": 1}
            assert store(alice, "topic.job", b"real", mid="order-1") == {"ref": 5, "seq": 2}
            assert store(alice, "topic.job", b"real", mid="order-1") == {
                "ref": 5,
                "seq": 2,
                "dup": True,
            }
