"""Flow, wills, revocation and the drain, with the real broker and clients by hand."""

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgpack
import pytest
import zmq

from tests.support.broker import Broker, running_broker
from tests.support.dialling import SMALL_BUFFERS, dialled, subscribed
from tests.support.raw import (
    BYE,
    DELIVERY,
    ERROR,
    GAP,
    GOODBYE,
    HELLO,
    PUBLISH,
    REPLY_DELIVERY,
    REQUEST,
    SUBSCRIBE,
    Raw,
)

CREDIT = 0x18
ROOT = Path(__file__).parents[2]

# A participant that says HELLO with a will and then waits to be killed.
MORTAL = """
import sys, time
from bus import Address, keystore
from pathlib import Path
from tests.support.raw import Raw
raw = Raw(Address(sys.argv[1], sys.argv[2]), keystore.load(Path(sys.argv[3])))
raw.send(0x01, {"will": "app.gone"}, b"farewell")
raw.hear_only(0x81)
print("here", flush=True)
time.sleep(600)
"""


def asked(raw: Raw, subject: str, value: object = None) -> object:
    body = b"" if value is None else msgpack.packb(value)
    raw.send(REQUEST, {"id": 77, "s": subject, "dl": 10_000}, body)
    code, fields, answer = raw.hear()
    assert (code, fields["ref"]) == (REPLY_DELIVERY, 77), (hex(code), fields)
    return msgpack.unpackb(answer)


# Slow and fast.


@pytest.mark.parametrize("slowness", ["does not read", "grants no credit"])
def test_a_slow_consumer_never_slows_others(slowness: str) -> None:
    count, body = 20_000, bytes(4096)
    options = SMALL_BUFFERS if slowness == "does not read" else {}
    with (
        running_broker(alice="app", slow="app", fast="app") as broker,
        dialled(broker, "alice") as alice,
        dialled(broker, "slow", options) as slow,
        dialled(broker, "fast", {zmq.RCVHWM: 0}) as fast,
    ):
        alice.hello()
        fast.hello()
        slow.hello(**({"credit": {"m": 0, "b": 0}} if slowness == "grants no credit" else {}))
        for raw in (slow, fast):
            subscribed(raw, "app.flood")
        for number in range(count):
            alice.send(PUBLISH, {"s": "app.flood"}, b"%d" % number + body)
        for number in range(count):
            code, _, heard = fast.hear()
            assert code == DELIVERY
            assert heard.rstrip(b"\0") == b"%d" % number
        assert fast.alive()
        if slowness == "grants no credit":
            gap = slow.hear_only(GAP)  # what is no delivery reaches it at once
            assert gap["first"] == 1
            assert slow.alive()
            slow.send(CREDIT, {"m": 5, "b": 1 << 20})
            kept = [slow.hear()[2].rstrip(b"\0") for _ in range(5)]
            assert kept == [b"%d" % (gap["lost"] + number) for number in range(5)]
            assert slow.silent(0.1)


def test_a_group_does_not_starve_its_fast_worker() -> None:
    count, window = 2_000, 10
    with (
        running_broker(alice="app", slow="app", fast="app") as broker,
        dialled(broker, "alice") as alice,
        dialled(broker, "slow") as slow,
        dialled(broker, "fast") as fast,
    ):
        for raw in (alice, slow, fast):
            raw.hello()
        for raw in (slow, fast):
            subscribed(raw, "app.work", q="workers", window=window)
        for number in range(count):
            alice.send(PUBLISH, {"s": "app.work"}, b"%d" % number)
        done: list[int] = []
        while len(done) < count - window:
            code, fields, body = fast.hear()
            assert code == DELIVERY
            n = fields.get("n", 1)
            done += map(int, msgpack.unpackb(body) if n > 1 else [body])
            fast.send(CREDIT, {"sid": 1, "m": n})
        assert done == sorted(done)
        held = []
        while len(held) < window:
            _, fields, body = slow.hear()
            n = fields.get("n", 1)
            held += list(map(int, msgpack.unpackb(body) if n > 1 else [body]))
        assert sorted(done + held) == list(range(count))
        assert slow.silent(0.1)


# Wills.


def started(broker: Broker, name: str) -> subprocess.Popen[str]:
    """Run a participant with a will; return once it is in session."""
    key = str(broker.folder / f"{name}.key")
    process = subprocess.Popen(
        [sys.executable, "-c", MORTAL, broker.address.endpoint, broker.address.key, key],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


def test_a_will_is_published_when_its_owner_is_killed() -> None:
    with (
        running_broker(alice="app", mortal="app") as broker,
        dialled(broker, "alice") as alice,
    ):
        alice.hello()
        subscribed(alice, "app.gone")
        process = started(broker, "mortal")
        assert alice.silent(0.2)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        code, fields, body = alice.hear()
        assert (code, fields["from"], body) == (
            DELIVERY, broker.keys["mortal"].public, b"farewell",
        )  # fmt: skip


def test_a_will_is_published_on_a_kick_and_not_on_a_goodbye() -> None:
    with (
        running_broker(alice="operator", mortal="app") as broker,
        dialled(broker, "alice") as alice,
    ):
        alice.hello()
        subscribed(alice, "app.gone")
        for end in ("kick", "bye", "kick"):
            with dialled(broker, "mortal") as mortal:
                mortal.send(HELLO, {"will": "app.gone"}, end.encode())
                mortal.hear()
                if end == "bye":
                    mortal.send(BYE)
                    assert mortal.hear_only(GOODBYE)["num"] == 0
                    continue
                key = broker.keys["mortal"].public
                alice.send(
                    REQUEST, {"id": 5, "s": "$SYS.kick", "dl": 9000},
                    msgpack.packb({"key": key, "reason": "too loud"}),
                )  # fmt: skip
                assert mortal.hear_only(GOODBYE) == {"num": 403, "reason": "kicked: too loud"}
                assert mortal.is_cut()
                code, fields, body = alice.hear()
                assert (code, fields["from"], body) == (DELIVERY, key, b"kick")
                code, fields, body = alice.hear()
                assert (code, fields["ref"]) == (REPLY_DELIVERY, 5)
                assert msgpack.unpackb(body) == {"count": 1}
        assert alice.silent(0.1)


# Access.


def test_a_key_revoked_in_mid_flow_gets_nothing_after_and_its_own_words_go_nowhere() -> None:
    with (
        running_broker(alice="admin", victim="app") as broker,
        dialled(broker, "alice") as alice,
        dialled(broker, "victim", {zmq.RCVHWM: 0}) as victim,
        dialled(broker, "victim", {zmq.SNDTIMEO: 200}) as voice,
    ):
        alice.hello()
        subscribed(alice, "app.from-victim")
        victim.hello()
        subscribed(victim, "app.flow")
        voice.hello()
        stop = threading.Event()

        def shout() -> None:
            with contextlib.suppress(zmq.ZMQError):
                while not stop.is_set():
                    voice.send(PUBLISH, {"s": "app.from-victim"}, b"me")
                    time.sleep(0.0005)

        shouting = threading.Thread(target=shout)
        shouting.start()
        body = bytes(1024)
        try:
            for number in range(500):
                alice.send(PUBLISH, {"s": "app.flow"}, b"%d" % number + body)
            heard = [victim.hear() for _ in range(100)]  # it is in mid-flow
            alice.send(
                REQUEST, {"id": 5, "s": "$SYS.access.remove", "dl": 9000},
                msgpack.packb({"key": broker.keys["victim"].public}),
            )  # fmt: skip
            for _ in range(500):
                alice.send(PUBLISH, {"s": "app.flow"}, b"after" + body)
            while alice.hear()[0] == DELIVERY:
                pass  # what it said before
            assert victim.is_cut()
        finally:
            stop.set()
            shouting.join()
        while victim.socket.poll(200):
            heard.append(victim.hear())
        assert all(code == DELIVERY for code, _, _ in heard), "no GOODBYE"
        assert not any(body.startswith(b"after") for _, _, body in heard)
        assert len(heard) <= 500
        assert alice.silent(0.2)
        with dialled(broker, "victim") as again:
            again.event(zmq.EVENT_HANDSHAKE_FAILED_AUTH)


def test_a_revoked_reader_that_lags_gets_no_more_than_had_left_the_brokers_machine() -> None:
    size, count = 16 << 10, 2_000
    with (
        running_broker(alice="admin", victim="app") as broker,
        dialled(broker, "alice") as alice,
        dialled(broker, "victim", {zmq.RCVHWM: 1, zmq.RCVBUF: 64 << 10}) as victim,
    ):
        alice.hello()
        victim.hello()
        subscribed(victim, "app.flow")
        for _ in range(count):
            alice.send(PUBLISH, {"s": "app.flow"}, bytes(size))
        asked(alice, "$SYS.access.remove", {"key": broker.keys["victim"].public})
        heard = 0
        while victim.socket.poll(200):
            heard += len(victim.hear()[2])
        assert heard < 512 << 10
        assert victim.is_cut()
        assert alice.alive()


def test_a_changed_key_keeps_its_session_and_loses_what_it_may_no_longer_hear() -> None:
    with (
        running_broker(alice="app", bob="operator") as broker,
        dialled(broker, "alice") as alice,
        dialled(broker, "bob") as bob,
    ):
        alice.hello()
        bob.hello(caps=["notices"])
        subscribed(bob, "mesh.>")
        broker.allow("bob", "app")
        broker.reload()
        ended = bob.hear_only(0x99)
        assert (ended["num"], ended["s"], ended["sid"]) == (403, "mesh.>", 1)
        assert bob.alive()
        bob.send(SUBSCRIBE, {"id": 3, "sid": 3, "s": "mesh.>"})
        assert bob.hear_only(ERROR)["err"] == "denied"
