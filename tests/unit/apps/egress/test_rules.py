import fnmatch
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.egress.hostnames import address_of
from apps.egress.rules import ALL_PORTS, Policy, Rule, RuleError

OPEN = Policy()


def refused(text: str, port: int = 80, policy: Policy = OPEN) -> bool:
    return policy.refusal(address_of(text), port) is not None


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.255.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.251",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",
        "200::1",
        "4000::1",
        "e000::1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::a00:1",
        "2001:0:53aa:64c::1",
        "2002:7f00:1::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_what_is_not_the_public_internet_is_denied(text: str):
    assert refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.1",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00::1",
    ],
)
def test_the_public_internet_is_allowed(text: str):
    assert not refused(text)


@pytest.mark.parametrize(
    "spelling",
    ["2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "017700000001", "localhost"],
)
def test_every_spelling_of_loopback_is_denied_once_resolved(spelling: str):
    found = {entry[4][0] for entry in socket.getaddrinfo(spelling, 80, type=socket.SOCK_STREAM)}
    assert found
    assert all(refused(str(text)) for text in found)


def test_the_reason_names_the_address_and_what_it_is():
    assert OPEN.refusal(address_of("127.0.0.1"), 80) == "127.0.0.1 is loopback"


@pytest.mark.parametrize("port", [25, 465, 587])
def test_mail_is_denied_unless_an_entry_names_it(port: int):
    assert refused("1.1.1.1", port)
    assert not refused("1.1.1.1", port, Policy([Rule.parse(f"1.1.1.0/24:{port}")]))


def test_the_own_public_address_is_denied_unless_allowed():
    address = address_of("1.2.3.4")
    assert OPEN.refusal(address, 80, own=[address])
    assert not Policy([Rule.parse("1.2.3.4/32")]).refusal(address, 80, own=[address])


def test_an_entry_opens_its_addresses_on_its_ports_and_nothing_else():
    policy = Policy([Rule.parse("127.0.0.1/32:8000-9000"), Rule.parse("[::1]/128:80")])
    assert not refused("127.0.0.1", 8000, policy)
    assert not refused("127.0.0.1", 9000, policy)
    assert refused("127.0.0.1", 9001, policy)
    assert refused("127.0.0.2", 8000, policy)
    assert not refused("::1", 80, policy)
    assert refused("::1", 81, policy)
    assert refused("::ffff:127.0.0.1", 8000, policy)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("127.0.0.1/32", range(65536)),
        ("127.0.0.1", range(65536)),
        ("10.0.0.0/8:443", range(443, 444)),
        ("::1/128", range(65536)),
        ("[::1]/128:1-65535", range(1, 65536)),
        ("[fd00::]/8", range(65536)),
    ],
)
def test_entries_are_read(text: str, ports: range):
    assert Rule.parse(text).ports == ports


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1/8",
        "127.0.0",
        "exa mple.com",
        "münchen.de",
        "*.example.com:web",
        "127.0.0.1/33",
        "[::1",
        "10.0.0.0/8:http",
        "10.0.0.0/8:0",
        "10.0.0.0/8:90-80",
        "10.0.0.0/8:1-70000",
        "::1/128:80:90",
    ],
)
def test_an_entry_that_cannot_be_read_is_named(text: str):
    with pytest.raises(RuleError) as caught:
        Rule.parse(text)
    assert repr(text) in str(caught.value)


def names(policy: Policy, name: str | None, port: int = 443, address: str = "1.1.1.1") -> bool:
    """Whether a name that resolves to this address may be reached."""
    return (
        policy.refusal_of_name(name, port) is None
        and policy.refusal(address_of(address), port, name=name) is None
    )


@pytest.mark.parametrize(
    ("entry", "name", "meant"),
    [
        ("example.com", "example.com", True),
        ("example.com", "www.example.com", False),
        ("example.com.", "example.com", True),
        ("EXAMPLE.com", "example.com", True),
        ("*.example.com", "www.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "badexample.com", False),
        ("ads*.example.com", "ads7.example.com", True),
        ("a*a", "a", False),
        ("a*b*c", "a1b2c", True),
        ("a*b*c", "acb", False),
        ("*.a.*", "x.a.b", True),
        ("*ab*b", "ab", False),
        ("example.com", "exampleXcom", False),
        ("*", "anything.test", True),
        ("*", None, True),
        ("example.com", None, False),
    ],
)
def test_an_entry_names_names(entry: str, name: str | None, meant: bool):
    assert Rule.parse(entry).covers_name(name, 443) is meant
    assert names(Policy(deny=[Rule.parse(entry)]), name) is not meant
    assert names(Policy([Rule.parse(entry)], only=True), name) is meant


def test_a_denied_name_is_refused_before_it_is_resolved():
    policy = Policy(deny=[Rule.parse("*.tracker.test:443")])
    assert policy.refusal_of_name("a.tracker.test", 443)
    assert policy.refusal_of_name("a.tracker.test", 80) is None


def test_denied_wins_over_allowed():
    policy = Policy([Rule.parse("10.0.0.0/8")], [Rule.parse("10.1.0.0/16"), Rule.parse("*:22")])
    assert not refused("10.0.0.1", 80, policy)
    assert refused("10.1.0.1", 80, policy)
    assert refused("10.0.0.1", 22, policy)
    assert refused("1.1.1.1", 22, policy)


@pytest.mark.parametrize("entry", ["evil.test", "*.test", "*", "evil.test:80"])
@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1"])
def test_a_name_that_is_allowed_opens_no_private_address(entry: str, address: str):
    """Whoever holds the name decides where it points: DNS rebinding."""
    policy = Policy([Rule.parse(entry)], only=True)
    assert names(policy, "evil.test", 80)
    assert not names(policy, "evil.test", 80, address)
    assert not names(Policy([Rule.parse(entry)]), "evil.test", 80, address)


def test_with_only_what_no_entry_names_is_refused():
    policy = Policy([Rule.parse("*.example.com:443"), Rule.parse("9.9.9.0/24:53")], only=True)
    assert names(policy, "www.example.com")
    assert not names(policy, "www.example.com", 80)
    assert not names(policy, None)
    assert names(policy, None, 53, "9.9.9.9")
    assert names(policy, "any.test", 53, "9.9.9.9")


def test_the_ports_of_mail_are_opened_by_a_name_that_names_the_port():
    assert not names(Policy([Rule.parse("mx.test")]), "mx.test", 587)
    assert names(Policy([Rule.parse("mx.test:587")]), "mx.test", 587)
    assert not names(Policy([Rule.parse("mx.test:587")]), "mx.test", 25)


def test_the_own_address_stays_closed_to_a_name_that_is_allowed():
    address = address_of("1.2.3.4")
    policy = Policy([Rule.parse("me.test:80")])
    assert policy.refusal(address, 80, own=[address], name="me.test")


def test_entries_without_ports_mean_all():
    assert Rule.parse("*.example.com").ports is ALL_PORTS


@given(st.text("ab.*", min_size=1, max_size=8), st.text("ab.", max_size=10))
def test_stars_mean_what_they_mean_in_the_shell(pattern: str, name: str):
    parts = tuple(pattern.split("*"))
    rule = Rule(None, parts, ALL_PORTS, pattern)
    assert rule.covers_name(name, 1) == fnmatch.fnmatchcase(name, pattern)


def test_no_pattern_makes_a_name_take_long():
    rule = Rule.parse("*a" * 100 + "b.test")
    assert not rule.covers_name("a" * 63 + "." + "a" * 63 + "." + "a" * 63 + ".test", 1)
