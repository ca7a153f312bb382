import socket
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.egress.hostnames import (
    LOOPBACK,
    NotAName,
    known,
    read_host,
    read_hosts,
    read_servers,
)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("example.com", "example.com"),
        ("Example.COM.", "example.com"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
        ("localhost", "localhost"),
        ("1password.com", "1password.com"),
        ("0x7f.example", "0x7f.example"),
        ("0x1g", "0x1g"),
        ("a" * 63 + ".test", "a" * 63 + ".test"),
    ],
)
def test_names_come_in_one_spelling(text: str, host: str):
    assert read_host(text) == host


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:127.0.0.1", "::ffff:7f00:1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.1.", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("169.16689662", "169.254.169.254"),
        ("0xa9fea9fe", "169.254.169.254"),
        ("0251.0376.0251.0376", "169.254.169.254"),
    ],
)
def test_addresses_are_read_in_all_spellings(text: str, address: str):
    assert read_host(text) == ip_address(address)


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "..", "a..b", ".a", "[", "]", "a b", "a\0b", "a/b", "a:b", "-a.test", "a-.test",
        "münchen.de", "\uff11\uff12\uff17.0.0.1", "127\u30020.0.1", "a" * 64, ".".join(["a" * 60] * 5),
        "256.256.256.256", "1.2.3.4.5", "1.2.3.4.0x1", "127.0.0.08", "4294967296", "a.1", "1.a.1",
        "127.0.0.1.2", "9" * 300, "1..2", "example.0x10",
    ],
)  # fmt: skip
def test_what_is_neither_is_told_so(text: str):
    with pytest.raises(NotAName):
        read_host(text)


@given(st.text(max_size=300))
def test_any_text_is_an_address_a_name_or_told_to_be_neither(text: str):
    try:
        host = read_host(text)
    except NotAName:
        return
    if isinstance(host, str):
        assert read_host(host) == host
        assert host.isascii()
        assert host == host.lower()
        assert len(host) <= 253


numbers = st.one_of(
    st.integers(0, 2**33).map(str),
    st.integers(0, 2**33).map(hex),
    st.integers(0, 2**33).map(lambda value: f"0{value:o}"),
)


@given(st.lists(numbers, min_size=1, max_size=5).map(".".join))
def test_the_c_library_reads_the_same_address_or_none(text: str):
    try:
        expected: IPv4Address | None = IPv4Address(socket.inet_aton(text))
    except OSError:
        expected = None
    try:
        assert read_host(text) == expected
    except NotAName:
        assert expected is None


@pytest.mark.parametrize("name", ["localhost", "a.localhost"])
def test_loopback_has_its_name_whatever_a_resolver_says(name: str):
    assert known(name) == LOOPBACK


@pytest.mark.parametrize("name", ["invalid", "a.invalid", "abc.onion"])
def test_names_that_no_resolver_may_know_are_not_asked_for(name: str):
    assert known(name) == ()


def test_other_names_are_asked_for():
    assert known("example.com") is None
    assert known("notlocalhost") is None


def test_the_servers_of_resolv_conf():
    text = "# a\nnameserver 192.0.2.1\noptions ndots:1\nnameserver fe80::1%eth0\nnameserver x\n"
    assert read_servers(text) == ["192.0.2.1", "fe80::1%eth0"]
    assert len(read_servers("nameserver 192.0.2.1\n" * 9)) == 3
    assert read_servers("search example.com\nnameserver\n") == ["127.0.0.1"]


def test_the_hosts_file():
    found = read_hosts("127.0.1.1 Box box.test. # mine\n\n::1 box\nnonsense here\n127.0.1.1 box\n")
    assert [str(address) for address in found["box"]] == ["127.0.1.1", "::1"]
    assert [str(address) for address in found["box.test"]] == ["127.0.1.1"]
    assert len(found) == 2


@given(st.text(max_size=200))
def test_files_that_are_nonsense_are_read(text: str):
    assert 1 <= len(read_servers(text)) <= 3
    assert all(addresses for addresses in read_hosts(text).values())
