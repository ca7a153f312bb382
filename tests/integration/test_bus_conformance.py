"""The conformance checks: our broker passes them, a broker that is made wrong does not."""

import json
import signal
import socket
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import pytest

from bus import Address, signals, sockets
from bus.conformance import FAILED, PASSED, SKIPPED, Result, exit_code, run, vectors
from bus.conformance.run import CHECKS
from tests.support.broker import PATIENCE, Broker, running_broker
from tests.support.middleman import Change, frames, middleman
from tests.support.raw import DELIVERY, ERROR, OK, PONG, REQUEST, REQUEST_DELIVERY, WELCOME, Raw

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with running_broker(alice="admin", bob="operator") as running:
        yield running


def play(
    broker: Broker, only: str, address: Address | None = None, patience: float = 10.0
) -> list[Result]:
    alice, bob = broker.keys["alice"], broker.keys["bob"]
    results = run(address or broker.address, alice, bob, patience=patience, only=only)
    assert results
    return results


@pytest.mark.timeout(120)
def test_our_broker_passes_every_check(broker: Broker) -> None:
    heard: list[Result] = []
    alice, bob = broker.keys["alice"], broker.keys["bob"]
    results = run(broker.address, alice, bob, patience=10.0, progress=heard.append)
    assert [result for result in results if result.outcome != PASSED] == []
    assert heard == results
    assert exit_code(results) == 0
    played = {v["name"] for v in vectors.load()["commands"] if v["direction"] == "client"}
    played |= {v["why"] for v in vectors.load()["refused"] + vectors.load()["accepted"]}
    names = [result.name for result in results]
    assert [one for one in played if not any(name.endswith(f": {one}") for name in names)] == []
    assert len(set(names)) == len(names)


def test_a_broker_that_is_told_to_stop_is_played_last() -> None:
    with running_broker(alice="operator", bob="app") as broker:
        alice, bob = broker.keys["alice"], broker.keys["bob"]
        stop = partial(broker.signal, signal.SIGTERM)
        *_, last = run(broker.address, alice, bob, patience=10.0, only="says goodbye", stop=stop)
        assert (last.outcome, last.came) == (PASSED, "")
        assert "NOTICE" in last.name
        assert broker.process is not None
        assert broker.process.wait(PATIENCE) == 0


def test_a_broker_that_does_not_stop_fails_that_check(broker: Broker) -> None:
    alice, bob = broker.keys["alice"], broker.keys["bob"]
    [result] = run(broker.address, alice, bob, patience=0.3, only="says NOTICE", stop=lambda: None)
    assert (result.outcome, "NOTICE" in result.expected) == (FAILED, True)


def test_the_document_tells_how_many_checks_there_are() -> None:
    assert f"dialogues, {len(CHECKS)} checks" in (ROOT / "docs/bus.md").read_text()


def test_enrolment_leaves_the_list_and_the_door_as_they_were(broker: Broker) -> None:
    with Raw(broker.address, broker.keys["alice"]) as alice:
        alice.hello()
        before = told(alice, signals.ACCESS_LIST)
        play(broker, "stranger")
        assert told(alice, signals.ACCESS_LIST) == before
        door = told(alice, signals.ENROL_LIST)
        assert (door["tokens"], door["open_until"]) == ([], 0)


def test_without_an_admins_key_what_needs_one_is_skipped() -> None:
    with running_broker(alice="operator", bob="operator") as broker:
        for only in ("stranger", "join token", "ENDED", "without notices"):
            skipped = [r.came for r in play(broker, only) if r.outcome == SKIPPED]
            assert skipped
            assert all(came.startswith("this key may not request $SYS.") for came in skipped)


def told(raw: Raw, subject: str) -> Any:
    raw.send(REQUEST, {"id": 99, "s": subject, "dl": 5000})
    return msgpack.unpackb(raw.hear()[2])


@pytest.mark.timeout(120)
def test_what_the_keys_may_not_do_is_skipped_and_said() -> None:
    with running_broker(alice="app", bob="app") as broker:
        results = play(broker, "")
        skipped = [result for result in results if result.outcome == SKIPPED]
        assert [result for result in results if result.outcome == FAILED] == []
        assert {"READ gives records from a sequence, from a time and the last ones"} <= {
            r.name for r in skipped
        }
        assert all(result.came.startswith("this key may not") for result in skipped)
        assert exit_code(results) == 0
        assert exit_code(skipped) == 1  # nothing was shown


HEARS = "a subscriber hears subject"
ASKS = "a request reaches who serves it"


def with_fields(code: int, **changed: Any) -> Change:
    """Change fields of the broker's messages of this code."""

    def change(sent: int, fields: dict[str, Any], body: list[bytes]) -> list[bytes] | None:
        return frames(sent, {**fields, **changed} if sent == code else fields, body)

    return change


def without(code: int) -> Change:
    """Lose the broker's messages of this code."""
    return lambda sent, fields, body: None if sent == code else frames(sent, fields, body)


def with_body(code: int, body: bytes) -> Change:
    return lambda sent, fields, was: frames(sent, fields, [body] if sent == code else was)


@pytest.mark.timeout(120)
def test_before_an_honest_middleman_the_broker_passes_what_the_wrong_ones_fail(
    broker: Broker,
) -> None:
    with middleman(broker) as address:
        for only in (
            HEARS,
            ASKS,
            "BYE is answered",
            "three frames",
            "a deadline ends",
            "WELCOME tells",
            "PING is",
        ):
            assert [r for r in play(broker, only, address) if r.outcome != PASSED] == []


@pytest.mark.parametrize(
    ("change", "only", "expected", "came"),
    [
        (with_fields(DELIVERY, **{"from": "0" * 40}), HEARS, "'from': '", "'from': '0000"),
        (with_body(DELIVERY, b"changed"), HEARS, "body b'-4.5'", "body b'changed'"),
        (with_fields(DELIVERY, sid=99), HEARS, "'sid': 2", "'sid': 99"),
        (without(OK), HEARS, "OK", "nothing within 1 s"),
        (with_fields(PONG, t=1), "PING is answered", "'t': 9223372036854775807", "'t': 1"),
        (with_fields(ERROR, num=500), "a deadline ends", "'num': 408", "'num': 500"),
        (with_fields(ERROR, ref=6), ASKS, "ERROR without ref", "one with ref"),
        (with_fields(REQUEST_DELIVERY, dl=6000), ASKS, "dl of at most 5000", "'dl': 6000"),
        (with_fields(WELCOME, key="0" * 40), "WELCOME tells", "key ", "0" * 40),
        (with_fields(WELCOME, limits={}), "WELCOME tells", "documented form", "KeyError: 'payload'"),
        (with_fields(WELCOME, caps=["no-such-thing"]), "WELCOME tells", "only capabilities", "no-such-thing"),
        (without(ERROR), "three frames", "ERROR", "GOODBYE"),
        (with_fields(ERROR, num=400), "ENROL in a session", "'num': 409", "'num': 400"),
    ],
)  # fmt: skip
def test_a_broker_that_says_something_else_fails_and_is_told_what(
    broker: Broker, change: Change, only: str, expected: str, came: str
) -> None:
    with middleman(broker, change) as address:
        [result] = play(broker, only, address, patience=1.0)
        assert result.outcome == FAILED
        assert expected in result.expected
        assert came in result.came
        assert result.sent
        assert exit_code([result]) == 1


def test_a_broker_that_does_not_cut_fails(broker: Broker) -> None:
    with middleman(broker, cuts=False) as address:
        [result] = play(broker, "BYE is answered", address, patience=1.0)
        assert (result.outcome, result.expected) == (FAILED, "the connection is cut")


def test_what_is_no_broker_fails() -> None:
    pair, other = sockets.new_keypair(), sockets.new_keypair()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = Address(f"tcp://127.0.0.1:{mute.getsockname()[1]}", pair.public)
        [result] = run(address, pair, other, patience=0.3, only="PING is answered")
        assert (result.outcome, result.came) == (FAILED, "nothing within 0.3 s")
    [result] = run(Address("tcp://nowhere", pair.public), pair, other, only="PING is answered")
    assert result.outcome == FAILED
    assert "tcp://nowhere" in result.came


def test_the_vectors_are_those_of_the_tests_and_are_shipped_where_they_are_looked_for() -> None:
    assert vectors.load() == json.loads((ROOT / "tests/vectors/sb1.json").read_text())
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]["wheel"]
    beside = Path(vectors.__file__).parent.relative_to(ROOT) / "sb1.json"
    assert wheel["force-include"]["tests/vectors/sb1.json"] == beside.as_posix()
