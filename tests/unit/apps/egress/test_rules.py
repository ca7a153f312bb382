import socket

import pytest

from apps.egress.rules import Allow, AllowError, Policy, address_of

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
    assert not refused("1.1.1.1", port, Policy([Allow.parse(f"1.1.1.0/24:{port}")]))


def test_the_own_public_address_is_denied_unless_allowed():
    address = address_of("1.2.3.4")
    assert OPEN.refusal(address, 80, own=[address])
    assert not Policy([Allow.parse("1.2.3.4/32")]).refusal(address, 80, own=[address])


def test_an_entry_opens_its_addresses_on_its_ports_and_nothing_else():
    policy = Policy([Allow.parse("127.0.0.1/32:8000-9000"), Allow.parse("[::1]/128:80")])
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
    assert Allow.parse(text).ports == ports


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "127.0.0.1/8",
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
    with pytest.raises(AllowError) as caught:
        Allow.parse(text)
    assert repr(text) in str(caught.value)
