"""The command line of vpn-server."""

import pytest

from apps.vpn.messages import Limits
from apps.vpn.options import parse

LEAST = ["--node", "beta", "--allow-key", "everybody"]


def test_who_may_use_it_must_be_said() -> None:
    options = parse(LEAST, "doc")
    assert options is not None
    assert options.keys is None
    keyed = parse(["--node", "beta", "--allow-key", "k" * 40], "doc")
    assert keyed is not None
    assert keyed.keys == ["k" * 40]
    with pytest.raises(SystemExit):
        parse(["--node", "beta"], "doc")


def test_amounts_are_read_with_their_units() -> None:
    options = parse([*LEAST, "--rate", "1.5M", "--volume", "50G", "--connections", "9"], "doc")
    assert options is not None
    assert options.limits == Limits(1_500_000, 1_500_000, 9, 50_000_000_000)


def test_resolvers_may_have_a_port() -> None:
    given = ["9.9.9.9", "1.1.1.1:5353", "2620:fe::fe", "[2620:fe::9]:54"]
    options = parse(LEAST + [part for text in given for part in ("--resolver", text)], "doc")
    assert options is not None
    assert options.resolver == (
        ("9.9.9.9", 53), ("1.1.1.1", 5353), ("2620:fe::fe", 53), ("2620:fe::9", 54),
    )  # fmt: skip


def test_putting_back_needs_nothing_else() -> None:
    assert parse(["--put-back"], "doc") is None


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (["--allow", "127.0.0.1/32"], "forward-server leads there"),
        (["--allow", "[::1]/128:80"], "forward-server leads there"),
        (["--allow", "*.example.com"], "a VPN sees addresses only"),
        (["--allow", "10.0.0.0/33"], "10.0.0.0/33"),
        (["--allow-key", "somebody"], "is not the key of a node"),
        (["--rate", "fast"], "no number of bytes"),
        (["--mtu", "576"], "1280"),
        (["--clients", "0"], "1 to 4096"),
        (["--clients", "30", "--network", "10.8.0.0/28"], "has addresses for 13"),
        (["--network", "8.8.8.0/24"], "not a private network"),
        (["--resolver", "dns.example"], "IP or IP:PORT"),
        (["--resolver", "1.1.1.1:0"], "IP or IP:PORT"),
        (["--port", "70000"], "1 to 65535"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(
    wrong: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([*LEAST, *wrong], "doc")
    assert ended.value.code == 2
    assert why in capsys.readouterr().err
