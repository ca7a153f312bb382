"""The addresses of an exit and of its clients."""

from ipaddress import IPv4Network, IPv6Network

import pytest

from apps.vpn.addresses import EXIT, BadNetwork, Plan, client_network
from bus.identity import from_bytes

KEYS = [from_bytes(bytes([number]) * 32) for number in range(40)]


def test_a_plan_is_the_same_wherever_it_is_computed() -> None:
    plan = Plan.of(KEYS[0])
    assert plan == Plan.of(KEYS[0])
    assert plan.wish(KEYS[1]) == Plan.of(KEYS[0]).wish(KEYS[1])


def test_exits_seldom_share_a_network() -> None:
    plans = [Plan.of(key) for key in KEYS]
    assert len({plan.v6 for plan in plans}) == len(KEYS)
    assert len({plan.v4 for plan in plans}) > len(KEYS) // 2


def test_all_addresses_of_a_plan_are_private_and_apart() -> None:
    for plan in map(Plan.of, KEYS):
        assert plan.v4.subnet_of(IPv4Network("10.0.0.0/8"))
        assert plan.v6.subnet_of(IPv6Network("fd00::/8"))
        assert not plan.v6.overlaps(plan.link6)
        assert plan.gateway4 == plan.v4[EXIT]
        assert plan.address6(plan.wish(KEYS[1])) in plan.v6


def test_every_wish_is_an_address_that_a_client_can_have() -> None:
    plan = Plan.of(KEYS[0], client_network("192.168.7.0/28"))
    assert plan.room == 13
    for key in KEYS:
        address = plan.address4(plan.wish(key))
        assert address not in {plan.v4[0], plan.gateway4, plan.v4.broadcast_address}


@pytest.mark.parametrize("text", ["8.8.0.0/16", "10.0.0.0/30", "127.0.0.0/8", "10.0.0.1/24", "x"])
def test_a_network_that_clients_cannot_have_is_refused(text: str) -> None:
    with pytest.raises(BadNetwork, match=text.replace(".", r"\.")):
        client_network(text)
