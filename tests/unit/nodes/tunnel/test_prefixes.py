"""Whose an address is."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.tunnel.prefixes import MAX_REMEMBERED, BadPrefix, Prefixes, parse


def address(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def table(**owners: list[str]) -> Prefixes[str]:
    made: Prefixes[str] = Prefixes()
    for owner, prefixes in owners.items():
        made.set(owner, [parse(text) for text in prefixes])
    return made


def test_the_longest_prefix_wins() -> None:
    made = table(all=["0.0.0.0/0", "::/0"], net=["10.1.0.0/16"], one=["10.1.2.3/32", "fd00::7"])
    assert made.of(address("8.8.8.8")) == "all"
    assert made.of(address("10.1.9.9")) == "net"
    assert made.of(address("10.1.2.3")) == "one"
    assert made.of(address("fd00::7")) == "one"
    assert made.of(address("fd00::8")) == "all"


def test_addresses_of_nobody_are_nobodys() -> None:
    made = table(net=["10.1.0.0/16"])
    assert made.of(address("10.2.0.1")) is None
    assert made.of(address("fd00::1")) is None


def test_what_is_said_of_an_owner_replaces_what_was_said() -> None:
    made = table(a=["10.1.0.0/16"], b=["10.2.0.0/16"])
    assert made.of(address("10.1.0.1")) == "a"
    made.set("a", [parse("10.3.0.0/16")])
    assert made.of(address("10.1.0.1")) is None
    assert made.of(address("10.3.0.1")) == "a"
    made.set("a", [])
    assert made.of(address("10.3.0.1")) is None
    assert made.of(address("10.2.0.1")) == "b"


def test_a_prefix_has_one_owner_and_a_refusal_changes_nothing() -> None:
    made = table(a=["10.1.0.0/16"])
    with pytest.raises(BadPrefix, match=r"10\.1\.0\.0/16 is another peer's"):
        made.set("b", [parse("10.2.0.0/16"), parse("10.1.0.0/16")])
    assert made.of(address("10.2.0.1")) is None
    assert made.of(address("10.1.0.1")) == "a"


@pytest.mark.parametrize("text", ["", "10.1", "10.1.2.3/33", "fd00::/129", "host", "10.0.0.0/-1"])
def test_what_is_no_prefix_is_named(text: str) -> None:
    with pytest.raises(BadPrefix, match="is no prefix"):
        parse(text)


def test_bits_of_the_host_are_dropped() -> None:
    assert parse("10.1.2.3/24") == (address("10.1.2.0"), 24)


def test_many_addresses_are_not_remembered_for_ever() -> None:
    made = table(a=["10.0.0.0/8"])
    for number in range(3 * MAX_REMEMBERED):
        assert made.of(address("10.0.0.0")[:1] + number.to_bytes(3, "big")) == "a"
    assert len(made._remembered) <= MAX_REMEMBERED


prefixes = st.builds(
    lambda number, length: f"{ipaddress.ip_address(number)}/{length}",
    st.integers(0, 0xFFFFFFFF).map(lambda n: n & 0xF0F00FFF),
    st.sampled_from([0, 4, 8, 12, 20, 31, 32]),
)


@given(st.lists(prefixes, max_size=12), st.lists(st.integers(0, 0xFFFFFFFF), max_size=12))
def test_it_finds_what_a_look_at_all_of_them_finds(texts: list[str], numbers: list[int]) -> None:
    networks = {ipaddress.ip_network(text, strict=False) for text in texts}
    made: Prefixes[str] = Prefixes()
    for network in networks:
        made.set(str(network), [parse(str(network))])
    looked = [ipaddress.ip_address(number & 0xF0F00FFF) for number in numbers]
    for where in [*looked, *(network.network_address for network in networks)]:
        fits = [network for network in networks if where in network]
        best = max(fits, key=lambda network: network.prefixlen, default=None)
        assert made.of(where.packed) == (None if best is None else str(best))
        assert made.length(where.packed, str(best)) == (-1 if best is None else best.prefixlen)
