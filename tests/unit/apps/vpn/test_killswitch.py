"""The kill switch as text; what the kernel makes of it is in tests/system/test_vpn_leaks.py."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.vpn.killswitch import FAMILY, PRIVATE, TABLE, Now, Policy, refreshed, ruleset, told

EVERYTHING = Policy("tun7", 60917, "/home/x")


def chain(text: str, name: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    begin = lines.index(f"chain {name} {{") + 1
    return lines[begin : lines.index("}", begin)]


def place(lines: list[str], part: str) -> int:
    return next(number for number, line in enumerate(lines) if part in line)


def test_the_table_is_replaced_in_one_transaction() -> None:
    first = ruleset(EVERYTHING, Now()).splitlines()[:3]
    assert first == [
        f"add table {FAMILY} {TABLE}", f"delete table {FAMILY} {TABLE}", f"table {FAMILY} {TABLE} {{"
    ]  # fmt: skip


def test_what_nothing_allows_is_dropped() -> None:
    assert "policy drop;" in chain(ruleset(EVERYTHING, Now()), "leaving")[0]


def test_without_a_lease_nothing_goes_into_the_tunnel() -> None:
    text = ruleset(EVERYTHING, Now())
    assert "set own4 { type ipv4_addr; }" in text
    assert "set own6 { type ipv6_addr; }" in text
    lines = chain(text, "leaving")
    assert place(lines, "oifname tun7 ip saddr @own4 accept") < place(
        lines, "oifname tun7 counter name source drop"
    )


def test_a_question_for_a_name_is_dropped_before_anything_outside_is_let_pass() -> None:
    policy = Policy("tun7", 60917, exclude=(IPv4Network("192.0.2.0/24"),), lan=True)
    lines = chain(ruleset(policy, Now()), "leaving")
    dns = place(lines, "dport { 53, 853 }")
    for outside in ("skuid", "@ports", "@exempt4", "@exempt6", "icmpv6"):
        assert dns < place(lines, outside)


def test_who_asks_the_system_s_resolvers_says_so() -> None:
    assert "53" not in " ".join(chain(ruleset(Policy("t", 1, own_dns=True), Now()), "leaving"))


def test_the_links_are_the_user_s_tcp_and_the_answers_of_its_ports() -> None:
    lines = chain(ruleset(EVERYTHING, Now(ports=frozenset({9, 5}))), "leaving")
    assert "meta skuid 60917 meta l4proto tcp accept" in lines
    assert "ct direction reply ct state established tcp sport @ports accept" in lines
    assert "elements = { 5, 9 }" in ruleset(EVERYTHING, Now(ports=frozenset({9, 5})))


def test_only_private_networks_are_local_and_only_when_asked_for() -> None:
    assert EVERYTHING.exempt == ()
    for network in Policy("t", 1, lan=True).exempt:
        assert network in PRIVATE or network.is_multicast


def test_what_is_not_tunnelled_goes_on_as_it_was() -> None:
    text = ruleset(Policy("t", 1, only=(IPv4Network("192.0.2.0/24"),)), Now())
    lines = chain(text, "leaving")
    assert "policy accept;" in lines[0]
    assert lines[-2:] == [
        "ip daddr @only4 counter name ipv4 drop",
        "ip6 daddr @only6 counter name ipv6 drop",
    ]
    assert (
        "set only4 { type ipv4_addr; flags interval; auto-merge; elements = { 192.0.2.0/24 }; }"
        in text
    )
    assert "set only6 { type ipv6_addr; flags interval; auto-merge; }" in text


@pytest.mark.parametrize("version", [4, 6])
def test_a_lease_fills_the_sets_and_its_end_empties_them(version: int) -> None:
    address = ip_address("10.66.0.2" if version == 4 else "fd66::2")
    name = f"own{version}"
    assert f"add element inet viscript_vpn {name} {{ {address} }}" in refreshed(Now((address,)))
    empty = refreshed(Now())
    assert f"flush set inet viscript_vpn {name}" in empty
    assert "add element" not in empty


@given(st.text())
def test_no_name_of_a_home_breaks_out_of_the_comment(home: str) -> None:
    text = ruleset(Policy("t", 1, home), Now())
    line = next(line for line in text.splitlines() if "comment" in line)
    assert line == f'  comment "{told(home)}"'
    assert line.count('"') == 2
    assert len(told(home)) <= 120


@given(
    st.lists(st.ip_addresses(v=4).map(ip_network) | st.ip_addresses(v=6).map(ip_network)),
    st.lists(st.ip_addresses()),
)
def test_each_network_stands_in_the_set_of_its_family(networks: list, addresses: list) -> None:
    text = ruleset(Policy("t", 1, only=tuple(networks)), Now(tuple(addresses)))
    for line in text.splitlines():
        if "elements" not in line or line.strip().startswith("set ports"):
            continue
        name = line.split()[1]
        for element in line.partition("elements = {")[2].partition("}")[0].split(","):
            kind = IPv4Network if name.endswith("4") else IPv6Network
            assert isinstance(ip_network(element.strip()), kind)
