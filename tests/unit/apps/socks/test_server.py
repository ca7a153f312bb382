import pytest

from apps.egress.ledger import Limits
from apps.socks.server import parse
from bus.identity import from_bytes

KEY = from_bytes(bytes(range(32)))


def test_without_a_limit_a_key_has_a_share_of_what_all_may_have():
    found = parse(["--node", "beta", "--max-connections", "100", "--max-associations", "8"])
    assert found.limits == Limits(connections=75, associations=2)
    assert found.limits_of == {}


def test_limits_of_a_key_stand_on_those_of_all_in_any_order():
    words = ["--limit", f"{KEY},rate=2M", "--limit", "connections=5", "--limit", "rate=1M"]
    found = parse(["--node", "beta", *words])
    assert (found.limits.connections, found.limits.rate) == (5, 1_000_000)
    assert found.limits_of[KEY] == Limits(
        connections=5, associations=found.limits.associations, rate=2_000_000
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("192.0.2.53", ("192.0.2.53", 53)),
        ("192.0.2.53:5353", ("192.0.2.53", 5353)),
        ("2001:db8::53", ("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", ("2001:db8::53", 5353)),
        ("[2001:db8::53]", ("2001:db8::53", 53)),
    ],
)
def test_name_servers_are_read(text: str, place: tuple[str, int]):
    assert parse(["--node", "beta", "--resolver", text]).resolver == (place,)


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (["--resolver", "192.0.2.53:port"], "192.0.2.53"),
        (["--resolver", "192.0.2.53:70000"], "192.0.2.53"),
        (["--allow-key", KEY[1:]], "viscript node ls"),
        (["--limit", "volume=1G/year"], "50G/day"),
        (["--deny", "10.0.0.1/8"], "10.0.0.1/8"),
        (["--allow", "example.com"], "--only"),
    ],
)
def test_wrong_arguments_are_told_with_a_way_out(
    words: list[str], way_out: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit, match="2"):
        parse(["--node", "beta", *words])
    assert way_out in capsys.readouterr().err
