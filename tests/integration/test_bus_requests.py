"""Requests over real sockets: streams, everybody asked, repeating, limits of workers, services.

Who speaks here is a client by hand, so that what is tested is the broker.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgpack
import zmq

from tests.support.broker import Broker, running_broker
from tests.support.raw import (
    BYE,
    ERROR,
    OK,
    REPLY,
    REPLY_DELIVERY,
    REQUEST,
    REQUEST_DELIVERY,
    SERVE,
    Raw,
)

MIB = 1 << 20
CREDIT, CANCEL, CREDIT_DELIVERY, CANCEL_DELIVERY = 0x18, 0x19, 0x97, 0x98


class Bus:
    """A broker and the sessions of those who joined it."""

    def __init__(self, broker: Broker, stack: ExitStack) -> None:
        self.broker = broker
        self._stack = stack

    def joins(self, name: str, *caps: str, buffered: int = 1000) -> Raw:
        """`buffered` messages are taken before they are read."""
        options = {zmq.RCVHWM: buffered}
        pair = self.broker.keys[name]
        raw = self._stack.enter_context(Raw(self.broker.address, pair, options=options))
        raw.hello(caps=list(caps))
        return raw

    def serves(self, who: str, subject: str, buffered: int = 1000, **fields: Any) -> Raw:
        raw = self.joins(who, "streams", buffered=buffered)
        raw.send(SERVE, {"id": 1, "s": subject, **fields})
        raw.hear_only(OK)
        return raw

    def key(self, name: str) -> str:
        return self.broker.keys[name].public


@contextmanager
def bus(**roles: str) -> Iterator[Bus]:
    """Run a broker; it must outlive what is done to it."""
    with running_broker(**roles) as broker, ExitStack() as stack:
        yield Bus(broker, stack)
        assert broker.running, broker.log
        assert "Traceback" not in broker.log


def asks(raw: Raw, ref: int, subject: str, body: bytes = b"", **fields: Any) -> None:
    raw.send(REQUEST, {"id": ref, "s": subject, "dl": 20_000, **fields}, body)


def asked(raw: Raw) -> tuple[dict[str, Any], bytes]:
    code, fields, body = raw.hear()
    assert code == REQUEST_DELIVERY, (hex(code), fields)
    return fields, body


def told(raw: Raw) -> tuple[int, str, int | None]:
    error = raw.hear_only(ERROR)
    return error["num"], error["err"], error.get("ref")


def test_a_streamed_reply_flows_as_far_as_it_is_granted() -> None:
    with bus(alice="app", bob="app") as here:
        alice, bob = here.joins("alice", "streams"), here.serves("bob", "app.log")
        asks(alice, 5, "app.log", stream=4)
        handle = asked(bob)[0]["r"]
        sent = received = 0
        window = 4
        while received < 1000:
            while window and sent < 1000:
                bob.send(REPLY, {"r": handle, "more": True}, b"%d" % sent)
                sent, window = sent + 1, window - 1
            code, fields, body = alice.hear()
            assert (code, fields["ref"], fields["more"]) == (REPLY_DELIVERY, 5, True)
            assert body == b"%d" % received
            received += 1
            if received % 4 == 0 and received < 1000:
                alice.send(CREDIT, {"ref": 5, "m": 4})
                granted = bob.hear_only(CREDIT_DELIVERY)
                assert granted == {"r": handle, "m": 4}
                window += 4
        bob.send(REPLY, {"r": handle}, b"end")
        code, fields, body = alice.hear()
        assert (code, fields.get("more", False), body) == (REPLY_DELIVERY, False, b"end")


def test_a_stream_over_its_credit_is_cut_off_and_both_sides_live_on() -> None:
    with bus(alice="app", bob="app") as here:
        alice, bob = here.joins("alice", "streams"), here.serves("bob", "app.log")
        asks(alice, 5, "app.log", stream=1)
        handle = asked(bob)[0]["r"]
        for _ in range(100):
            bob.send(REPLY, {"r": handle, "more": True}, bytes(1000))
        assert told(bob) == (429, "credit", None)
        assert {told(bob) for _ in range(98)} == {(404, "no_request", None)}
        assert alice.hear()[0] == REPLY_DELIVERY
        assert told(alice) == (429, "credit", 5)
        assert alice.alive()
        assert bob.alive()


def test_a_stream_that_nobody_wants_any_more_is_stopped() -> None:
    with bus(alice="app", bob="app") as here:
        bob = here.serves("bob", "app.log")
        for end in ("cancel", "goodbye", "hang up"):
            alice = here.joins("alice", "streams")
            asks(alice, 5, "app.log", stream=4)
            handle = asked(bob)[0]["r"]
            bob.send(REPLY, {"r": handle, "more": True}, b"chunk")
            alice.hear_only(REPLY_DELIVERY)
            if end == "cancel":
                alice.send(CANCEL, {"ref": 5})
            elif end == "goodbye":
                alice.send(BYE)
            else:
                alice.hang_up()
            assert bob.hear_only(CANCEL_DELIVERY) == {"r": handle}
            bob.send(REPLY, {"r": handle}, b"late")
            assert told(bob) == (404, "no_request", None)


def test_everybody_who_serves_is_asked_and_nobody_waits_for_who_hangs_up() -> None:
    with bus(alice="app", bob="app", carol="app", dave="app") as here:
        alice = here.joins("alice")
        workers = {name: here.serves(name, "app.who") for name in ("bob", "carol", "dave")}
        asks(alice, 5, "app.who", b"who?", all=True)
        for name, raw in workers.items():
            fields, body = asked(raw)
            assert body == b"who?"
            if name == "dave":
                raw.hang_up()
            else:
                raw.send(REPLY, {"r": fields["r"]}, name.encode())
        answers = [alice.hear() for _ in range(3)]
        assert [code for code, _, _ in answers] == [REPLY_DELIVERY] * 3
        assert {(f["from"], b) for _, f, b in answers[:2]} == {
            (here.key("bob"), b"bob"), (here.key("carol"), b"carol"),
        }  # fmt: skip
        _, last, body = answers[2]
        assert (last["from"], last.get("more", False), body) == (
            here.broker.address.key, False, b"",
        )  # fmt: skip


def test_what_may_be_repeated_survives_its_worker_and_its_requester() -> None:
    with bus(alice="app", bob="app", carol="app") as here:
        alice, bob = here.joins("alice"), here.serves("bob", "app.pay")
        asks(alice, 5, "app.pay", b"10", idem="bill-7")
        asked(bob)
        carol = here.serves("carol", "app.pay")
        bob.hang_up()
        fields, body = asked(carol)
        assert (body, fields["from"], 0 < fields["dl"] <= 20_000) == (
            b"10",
            here.key("alice"),
            True,
        )
        alice.hang_up()
        alice = here.joins("alice")
        asks(alice, 1, "app.pay", b"10", idem="bill-7")
        assert alice.alive()  # so the repeat was read before the reply
        carol.send(REPLY, {"r": fields["r"]}, b"paid")
        code, reply, body = alice.hear()
        assert (code, reply["ref"], reply["from"], body) == (
            REPLY_DELIVERY, 1, here.key("carol"), b"paid",
        )  # fmt: skip
        carol.hang_up()
        asks(alice, 2, "app.pay", b"10", idem="bill-7")
        code, reply, body = alice.hear()
        assert (code, reply["ref"], body) == (REPLY_DELIVERY, 2, b"paid")


def test_a_slow_worker_starves_nobody_and_is_not_flooded() -> None:
    with bus(alice="app", bob="app", carol="app") as here:
        alice = here.joins("alice")
        bob = here.serves("bob", "app.job", inflight=1)  # and never answers
        carol = here.serves("carol", "app.job", inflight=4)
        for ref in range(200):
            asks(alice, ref, "app.job", b"%d" % ref)
        answered = 0
        while answered < 199:
            fields, body = asked(carol)
            carol.send(REPLY, {"r": fields["r"]}, body)
            code, reply, _ = alice.hear()
            assert (code, reply["from"]) == (REPLY_DELIVERY, here.key("carol"))
            answered += 1
        asked(bob)
        assert bob.silent(0.2)


def test_services_tell_what_they_are_and_how_they_do() -> None:
    with bus(alice="app", bob="app", olga="observer") as here:
        alice, olga = here.joins("alice"), here.joins("olga")
        bob = here.serves("bob", "app.clock.*", name="clock", ver="2.1", desc="tells the time")
        for ref in range(3):
            asks(alice, ref, "app.clock.now")
            handle = asked(bob)[0]["r"]
            bob.send(REPLY, {"r": handle, **({"err": "late", "num": 500} if ref == 0 else {})})
            alice.hear_only(REPLY_DELIVERY)
        asks(olga, 1, "$SYS.services")
        [info] = msgpack.unpackb(olga.hear()[2])["services"]
        assert 0 <= info.pop("seconds") < 10
        assert info.pop("session") > 0
        assert info == {
            "subject": "app.clock.*", "name": "clock", "ver": "2.1", "desc": "tells the time",
            "key": here.key("bob"), "limit": 0, "inflight": 0, "requests": 3, "errors": 1,
        }  # fmt: skip


def test_a_flood_of_large_requests_to_a_busy_worker_is_bounded_and_others_are_served() -> None:
    with bus(alice="app", mallory="app", bob="app", carol="app") as here:
        before = here.broker.peak_rss
        here.serves("bob", "app.slow", inflight=1)
        carol = here.serves("carol", "app.quick")
        attackers = [here.joins("mallory") for _ in range(3)]
        refused = 0
        for number in range(3 * 60):
            raw = attackers[number % 3]
            asks(
                raw, number, "app.slow", bytes(MIB), **({"idem": f"{number}"} if number % 2 else {})
            )
            if number >= 3 * 50:
                assert told(raw)[1] == "limit"
                refused += 1
        assert refused == 30
        alice = here.joins("alice")
        asks(alice, 1, "app.quick")
        carol.send(REPLY, {"r": asked(carol)[0]["r"]}, b"here")
        assert alice.hear()[2] == b"here"
        assert here.broker.peak_rss - before < 160 * MIB


def test_a_worker_that_never_reads_is_spared_what_a_requester_pours_on_it() -> None:
    with bus(mallory="app", bob="app", alice="app") as here:
        bob = here.serves("bob", "app.deaf", buffered=4)
        mallory = here.joins("mallory", "streams")
        seen: set[str] = set()
        for ref in range(200):
            asks(mallory, ref, "app.deaf", bytes(MIB), stream=1)
            mallory.send(CANCEL, {"ref": ref})
            while not mallory.silent(0):
                seen.add(told(mallory)[1])
        while not mallory.silent(0.2):
            seen.add(told(mallory)[1])
        assert seen == {"limit"}
        heard = {bob.hear()[0] for _ in range(10)}
        assert heard <= {REQUEST_DELIVERY, CANCEL_DELIVERY}
        alice = here.joins("alice")
        while not bob.silent(0.3):
            bob.hear()
        asks(alice, 1, "app.deaf")
        bob.send(REPLY, {"r": asked(bob)[0]["r"]}, b"back")
        assert alice.hear()[2] == b"back"
