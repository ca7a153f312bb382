"""Orders of the manager: what a node obeys, and what it does not."""

import msgspec
import pytest
import xeddsa
from hypothesis import given
from hypothesis import strategies as st

from bus.identity import to_bytes
from bus.keystore import new_keypair
from nodes.orders import (
    MAX_AHEAD_MS,
    VALID_MS,
    Expect,
    Guard,
    Install,
    NotObeyed,
    Order,
    Receiver,
    Remove,
    Signed,
    Suggest,
    text_to_sign,
)

MANAGER, OTHER, NODE, STRANGER = (new_keypair() for _ in range(4))
BOOT = bytes(range(16))
ROUTE = "00112233445566aa"
ORDER = Install(STRANGER.public, peer=OTHER.public)


def receiver() -> Receiver:
    """The node as the manager knows it: its clock was 5,000 ms when the manager's was 100 s."""
    return Receiver(NODE.public, BOOT, 5_000, 100.0, 0)


def guard() -> Guard:
    return Guard(NODE.public, BOOT, MANAGER.public)


def signed(order: Order = ORDER, route: str = ROUTE) -> Signed:
    return receiver().sign(MANAGER.secret, route, order, 101.0)


def refusal(by: Guard, what: Signed, at: int = 6_000) -> str:
    with pytest.raises(NotObeyed) as caught:
        by.check(what, at)
    return caught.value.name


def test_an_order_of_the_manager_is_obeyed_once() -> None:
    node, what = guard(), signed()
    assert node.check(what, 6_000) == ORDER
    assert refusal(node, what) == "replayed"


def test_an_older_order_is_refused_after_a_newer_one() -> None:
    there, node = receiver(), guard()
    first = there.sign(MANAGER.secret, ROUTE, ORDER, 101.0)
    second = there.sign(MANAGER.secret, ROUTE, Remove(), 101.0)
    assert node.check(second, 6_000) == Remove()
    assert refusal(node, first) == "replayed"


def test_an_order_ends_by_the_clock_of_its_receiver() -> None:
    what = signed()
    assert what.expires == 6_000 + VALID_MS
    assert refusal(guard(), what, what.expires + 1) == "expired"
    assert refusal(guard(), what, what.expires - MAX_AHEAD_MS - 1) == "expired"
    assert guard().check(what, what.expires) == ORDER


def test_another_key_signs_nothing() -> None:
    forged = receiver().sign(OTHER.secret, ROUTE, ORDER, 101.0)
    assert refusal(guard(), forged) == "bad_signature"


def test_an_order_for_another_node_or_another_start_is_worth_nothing() -> None:
    assert refusal(Guard(OTHER.public, BOOT, MANAGER.public), signed()) == "bad_signature"
    assert refusal(Guard(NODE.public, bytes(16), MANAGER.public), signed()) == "bad_signature"


def test_a_node_without_a_manager_obeys_nobody() -> None:
    assert refusal(Guard(NODE.public, BOOT), signed()) == "no_manager"
    assert refusal(Guard(NODE.public, BOOT, "x" * 39 + "~"), signed()) == "no_manager"


def test_an_order_moved_to_another_route_is_refused() -> None:
    moved = msgspec.structs.replace(signed(), route="ffffffffffffffff")
    assert refusal(guard(), moved) == "bad_signature"


def test_orders_about_routes_name_one_and_others_do_not() -> None:
    assert refusal(guard(), signed(route="")) == "bad_order"
    assert refusal(guard(), signed(Expect(OTHER.public))) == "bad_order"
    assert guard().check(signed(Suggest([]), ""), 6_000) == Suggest([])


def test_serials_go_on_from_what_the_node_says_it_obeyed() -> None:
    there, node = receiver(), guard()
    for _ in range(5):
        node.check(there.sign(MANAGER.secret, ROUTE, Remove(), 101.0), 6_000)
    restarted = Receiver(NODE.public, BOOT, 6_000, 0.5, node.serial)
    assert node.check(restarted.sign(MANAGER.secret, ROUTE, ORDER, 1.0), 6_500) == ORDER


def test_what_is_on_the_way_counts_when_the_node_registers_again() -> None:
    there = receiver()
    there.serial = 9
    there.heard(BOOT, 7_000, 4, 102.0)
    assert (there.serial, there.ms) == (9, 7_000)
    there.heard(bytes(16), 10, 0, 103.0)  # the node was started again
    assert (there.serial, there.boot) == (0, bytes(16))


@given(st.integers(0, 63), st.integers(1, 255))
def test_no_bit_of_a_signature_may_differ(at: int, by: int) -> None:
    what = signed()
    signature = bytearray(what.signature)
    signature[at] ^= by
    forged = msgspec.structs.replace(what, signature=bytes(signature))
    assert refusal(guard(), forged) == "bad_signature"


@given(st.binary(max_size=200))
def test_a_signed_order_that_is_none_is_refused_by_name(body: bytes) -> None:
    what = msgspec.structs.replace(signed(), order=body)
    private = xeddsa.priv_force_sign(to_bytes(MANAGER.secret), False)
    signature = xeddsa.ed25519_priv_sign(private, text_to_sign(NODE.public, BOOT, what))
    with pytest.raises(NotObeyed):
        guard().check(msgspec.structs.replace(what, signature=signature), 6_000)


def test_the_signed_bytes_are_those_of_the_specification() -> None:
    unsigned = Signed(ROUTE, 7, 36_000, b"\x81\xa4type\xa6remove", bytes(64))
    assert text_to_sign(NODE.public, BOOT, unsigned) == (
        b"viscript mesh order 2"
        + to_bytes(NODE.public)
        + BOOT
        + b"\x10"
        + ROUTE.encode()
        + (7).to_bytes(8, "big")
        + (36_000).to_bytes(8, "big")
        + b"\x81\xa4type\xa6remove"
    )
