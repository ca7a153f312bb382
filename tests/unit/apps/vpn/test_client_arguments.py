"""The command line of the client."""

from ipaddress import ip_network

import pytest

from apps.vpn.client import parse


def test_what_is_not_said_is_everything_through_the_tunnel() -> None:
    found = parse(["--node", "alpha", "beta", "fastest"])
    assert (found.exits, found.only, found.exclude) == (["beta", "fastest"], [], [])
    assert not found.lan
    assert not found.own_dns


def test_networks_are_collected() -> None:
    found = parse(["--node", "a", "--only", "192.0.2.0/24", "--only", "2001:db8::/32", "b"])
    assert found.only == [ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--only", "192.0.2.1/24"], "has host bits set; want for instance 192.0.2.0/24"),
        (["--exclude", "0.0.0.0/0"], "0.0.0.0/0 is everything"),
        (["--exclude", "::/0"], "::/0 is everything"),
        (["--mtu", "1000"], "is not from 1280 to 65535"),
        (["--tun", "a b"], "letters and digits, at most 15"),
        (["--tun", "a" * 16], "letters and digits, at most 15"),
        (["--offload", "on"], "invalid choice"),
        (["--egress-uid", "root"], "invalid int value"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--node", "a", *words, "beta"])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_an_exit_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--node", "a"])
    assert "EXIT" in capsys.readouterr().err
