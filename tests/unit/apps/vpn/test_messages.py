"""What the two halves of the VPN tell each other."""

import contextlib

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.vpn import messages
from apps.vpn.messages import (
    Alive,
    AtClient,
    AtExit,
    BadMessage,
    Lease,
    Limits,
    Over,
    Refusal,
    Request,
    Status,
    Why,
)

LEASE = Lease(
    "10.70.0.9/32", "fd12:3456:789a::9/128", ["10.70.0.1", "fd12:3456:789a::1"], 1500, 20.0,
    Limits(down=1_000_000),
)  # fmt: skip


def test_what_one_half_writes_the_other_reads() -> None:
    request = Request(messages.VERSION, ["gso"])
    assert messages.read_request(messages.encode(request)) == request
    assert messages.read_lease(messages.encode(LEASE)) == LEASE
    refusal = Refusal("the exit is full")
    assert messages.read_refusal(messages.encode(refusal)) == refusal


def test_a_lease_gives_its_addresses() -> None:
    assert str(LEASE.address4) == "10.70.0.9"
    assert str(LEASE.address6) == "fd12:3456:789a::9"
    assert [str(address) for address in LEASE.resolvers] == LEASE.resolver


def test_messages_arrive_whole_however_the_stream_cuts_them() -> None:
    sent = [Status(3, 0.5, 7, 1000, {"private": 2}), Over(Why.VOLUME, "used up")]
    data = b"".join(messages.frame(message) for message in sent)
    reader = AtClient()
    assert [found for byte in data for found in reader.feed(bytes([byte]))] == sent
    assert AtClient().feed(data) == sent
    assert AtExit().feed(messages.frame(Alive()) * 2) == [Alive(), Alive()]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"v4": "8.8.8.8/32"}, "not a private address"),
        ({"v4": "10.0.0.0/8"}, "more than one address"),
        ({"v6": "2001:4860::1/128"}, "not a private address"),
        ({"v6": "::1/128"}, "not a private address"),
        ({"v4": "127.0.0.1/32"}, "not a private address"),
        ({"v4": "nowhere"}, "address that is none"),
        ({"resolver": ["9.9.9.9"]}, "not a private address"),
        ({"resolver": ["10.70.0.1%eth0"]}, "address that is none"),
        ({"version": 2}, "version 2"),
    ],
)
def test_a_lease_that_no_exit_has_to_give_is_refused(changed: dict[str, object], why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        messages.read_lease(messages.encode(msgspec.structs.replace(LEASE, **changed)))


@pytest.mark.parametrize(
    "changed", [{"mtu": 68}, {"mtu": 70_000}, {"lease": 0.0}, {"resolver": []}]
)
def test_a_lease_out_of_bounds_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(BadMessage, match="malformed"):
        messages.read_lease(messages.encode(msgspec.structs.replace(LEASE, **changed)))


def test_another_version_is_refused_by_its_number() -> None:
    with pytest.raises(BadMessage, match="version 7 is not spoken here, but 1"):
        messages.read_request(messages.encode(Request(7)))


def test_a_refusal_that_says_nothing_is_a_refusal() -> None:
    assert messages.read_refusal(b"\xc1").reason == "without a reason"


def test_a_length_that_no_message_has_is_refused_before_its_bytes_come() -> None:
    for size in (0, messages.MAX_MESSAGE + 1):
        with pytest.raises(BadMessage, match="at most"):
            AtExit().feed(size.to_bytes(2, "big"))


@given(st.binary(max_size=300), st.integers(1, 50))
def test_whatever_comes_is_read_or_refused(data: bytes, step: int) -> None:
    for read in (messages.read_request, messages.read_lease):
        with contextlib.suppress(BadMessage):
            read(data)
    messages.read_refusal(data)
    for reader in (AtExit(), AtClient()):
        with contextlib.suppress(BadMessage):
            for start in range(0, len(data), step):
                reader.feed(data[start : start + step])


NAMES = ["type", "version", "v4", "v6", "resolver", "mtu", "lease", "limits", "load", "blocked"]
VALUES = st.none() | st.integers(-5, 70_000) | st.sampled_from(["status", "over", "10.0.0.1/32"])


@given(st.dictionaries(st.sampled_from(NAMES), VALUES | st.lists(VALUES, max_size=3)))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_maps_with_the_right_names_and_wrong_values_are_read_or_refused(said: object) -> None:
    body = msgspec.msgpack.encode(said)
    for read in (messages.read_request, messages.read_lease, messages.read_refusal):
        with contextlib.suppress(BadMessage):
            read(body)
    with contextlib.suppress(BadMessage):
        AtClient().feed(len(body).to_bytes(2, "big") + body)
