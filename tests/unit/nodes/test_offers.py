"""Announcements: signed by the node where the app listens, good for a while, and nothing else passes."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.identity import KeyPair, from_bytes, to_bytes
from bus.sockets import new_keypair
from nodes import offers
from nodes.offers import Announcement, BadOffer

NOW = 1_800_000_000.0
PAIR, OTHER = new_keypair(), new_keypair()


def announced(
    *, port: int = 1080, now: float = NOW, lifetime: int = 30, pair: KeyPair = PAIR
) -> Announcement:
    statement = offers.state("socks", {"country": "CH"}, now, lifetime)
    signature = offers.vouch(to_bytes(pair.secret), port, statement)
    return Announcement(pair.public, port, statement, signature)


def test_what_a_node_signed_is_believed_until_it_expires() -> None:
    told = announced()
    for now in (NOW, NOW + 29.9):
        said = offers.verified(told, now)
        assert (said.type, said.labels, said.expires) == ("socks", {"country": "CH"}, NOW + 30)
    with pytest.raises(BadOffer, match="expired 1 s ago"):
        offers.verified(told, NOW + 31)


def test_what_comes_from_the_future_is_not_believed() -> None:
    offers.verified(announced(now=NOW + offers.SKEW - 1), NOW)
    with pytest.raises(BadOffer, match="compare the clocks"):
        offers.verified(announced(now=NOW + offers.SKEW + 1), NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": OTHER.public},
        {"key": "0" * 39 + "#"},
        {"key": "#" * 40},
        {"port": 1081},
        {"statement": offers.state("socks", {"country": "AT"}, NOW, 30)},
        {"signature": bytes(64)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_was_changed_on_the_way_is_not_believed(changes: dict[str, object]) -> None:
    forged = msgspec.structs.replace(announced(), **changes)
    with pytest.raises(BadOffer):
        offers.verified(forged, NOW)


@given(st.binary(max_size=1100), st.binary(min_size=64, max_size=64), st.text(max_size=45))
def test_anything_else_is_a_named_error(statement: bytes, signature: bytes, key: str) -> None:
    with pytest.raises(BadOffer):
        offers.verified(Announcement(key, 1, statement, signature), NOW)


@given(st.binary(min_size=64, max_size=64), st.binary(min_size=32, max_size=32))
def test_no_signature_and_no_key_breaks_it(signature: bytes, key: bytes) -> None:

    forged = Announcement(from_bytes(key), 1, announced().statement, signature)
    with pytest.raises(BadOffer):
        offers.verified(forged, NOW)


@pytest.mark.parametrize(
    ("kind", "labels", "lifetime"),
    [
        ("", {}, 30),
        ("so cks", {}, 30),
        ("x" * 33, {}, 30),
        ("socks", {"a b": ""}, 30),
        ("socks", {"a": "x" * 129}, 30),
        ("socks", {f"l{n}": "" for n in range(17)}, 30),
        ("socks", {f"l{n}": "x" * 128 for n in range(16)}, 30),  # over 1,024 bytes
        ("socks", {}, 0),
        ("socks", {}, 601),
    ],
)
def test_what_no_tracker_would_take_is_not_even_stated(
    kind: str, labels: dict[str, str], lifetime: int
) -> None:
    with pytest.raises(BadOffer):
        offers.state(kind, labels, NOW, lifetime)
