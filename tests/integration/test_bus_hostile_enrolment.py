"""Strangers at the door of the real broker, who do more than ask: nobody in session notices."""

import contextlib
import time
from typing import Any

import pytest
import zmq

from bus import NotAuthorised
from bus.routing.enrolment import MAX_FROM_ADDRESS, MAX_PENDING, STAY
from tests.support.raw import ERROR, HELLO, PING, PUBLISH, REQUEST, SUBSCRIBE, Raw
from tests.support.reception import ENROL, ENROLLED, newcomer, opens, reception, state, waiting

REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH


def test_a_name_with_control_characters_is_shown_without_them() -> None:
    with reception() as broker:
        opens(broker)
        with Raw(broker.address, newcomer(broker)) as raw:
            raw.send(ENROL, {"id": 1, "name": "ad\x1b[31mmin\r\n\u202eroot\x00"})
            assert raw.hear_only(ENROLLED)["state"] == "pending"
            assert raw.is_cut()
        assert [asked["name"] for asked in waiting(broker)] == ["ad[31mminroot"]
        assert "\x1b" not in broker.log


def test_while_the_door_is_closed_an_unknown_key_does_not_get_through_the_handshake() -> None:
    with reception() as broker:
        lamp = newcomer(broker)
        for code, fields in ((ENROL, {"id": 1}), (PUBLISH, {"s": "app.x"}), (HELLO, {})):
            with Raw(broker.address, lamp) as raw:
                raw.send(code, fields)
                assert raw.event(REFUSED) == 400
                assert raw.silent(0.05)


@pytest.mark.parametrize(
    ("code", "fields"),
    [(HELLO, {"name": "alice"}), (PUBLISH, {"s": "app.x", "id": 1}), (PING, {"t": 1}),
     (SUBSCRIBE, {"id": 1, "sid": 1, "s": "app.>"}), (REQUEST, {"id": 1, "s": "$SYS.info", "dl": 1000})],
)  # fmt: skip
def test_while_it_is_open_an_unknown_key_may_say_nothing_but_enrol(
    code: int, fields: dict[str, Any]
) -> None:
    with reception() as broker:
        opens(broker)
        with Raw(broker.address, newcomer(broker)) as raw:
            raw.send(code, fields, b"body")
            error = raw.hear_only(ERROR)
            assert (error["num"], error["err"]) == (401, "key_unknown")
            assert raw.is_cut()


def test_a_stranger_that_goes_on_after_its_answer_is_cut_at_once_and_unheard() -> None:
    with reception() as broker:
        opens(broker)
        with Raw(broker.address, newcomer(broker), options={zmq.SNDTIMEO: 300}) as raw:
            raw.send(ENROL, {"id": 1})
            with contextlib.suppress(zmq.Again):  # nobody takes anything after the cut
                for number in range(1000):
                    raw.send(PUBLISH, {"s": "app.x", "id": number}, bytes(1000))
            assert raw.is_cut()
            heard = []
            while not raw.silent(0.05):
                heard.append(raw.hear()[0])
            assert heard in ([ENROLLED], [])  # cut at once, perhaps before the answer had left
        assert len(waiting(broker)) == 1


def test_a_flood_of_newcomers_fills_a_bounded_list_and_holds_up_nobody() -> None:
    with reception() as broker, Raw(broker.address, broker.keys["boss"]) as boss:
        opens(broker, 600)
        boss.hello()
        states = []
        for number in range(MAX_FROM_ADDRESS + 20):
            try:
                states.append(state(broker, newcomer(broker, f"flood{number}")))
            except NotAuthorised:
                states.append("refused by the handshake")
            assert boss.alive()
        assert states[:5] == ["pending"] * 5
        assert "refused by the handshake" in states
        assert len(waiting(broker)) <= MAX_PENDING


def test_a_stranger_that_says_nothing_is_cut() -> None:
    """A session that says nothing for as long is not: alice's."""
    with reception() as broker:
        opens(broker)
        with Raw(broker.address, newcomer(broker)) as mute:
            mute.event(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            start = time.monotonic()
            mute.event(zmq.EVENT_DISCONNECTED, patience=3 * STAY)
            assert time.monotonic() - start > STAY / 2


def test_strangers_that_pour_in_large_messages_are_cut_within_a_memory_bound() -> None:
    """The bound: what libzmq takes in from a connection before the broker's loop has cut it."""
    with reception() as broker, Raw(broker.address, broker.keys["boss"]) as boss:
        opens(broker, 600)
        boss.hello()
        before = broker.rss
        for number in range(20):
            options = {zmq.SNDTIMEO: 300, zmq.SNDHWM: 10}  # nobody takes anything after the cut
            with Raw(broker.address, newcomer(broker, f"s{number}"), options=options) as raw:
                raw.send(ENROL, {"id": 1})
                with contextlib.suppress(zmq.Again):
                    for _ in range(60):
                        raw.send(PUBLISH, {"s": "app.x"}, bytes(1 << 20))
                assert raw.is_cut()
            assert boss.alive()
        assert len(waiting(broker)) == 20
        assert broker.peak_rss - before < 150 << 20
