"""The rules of an exit, as text, and what they count."""

import pytest

from apps.egress.rules import DENIED, Rule
from apps.vpn import figures, rulesets
from apps.vpn.addresses import Plan
from apps.vpn.rulesets import Blocked, Inside, Machine
from bus.identity import from_bytes

PLAN = Plan.of(from_bytes(bytes(32)))


def chain(text: str, name: str) -> list[str]:
    """The lines of one chain."""
    inside = text.partition(f"chain {name} {{")[2].partition("}\n")[0]
    return [line.strip() for line in inside.splitlines() if line.strip()]


def test_nothing_passes_that_no_rule_names() -> None:
    text = rulesets.inside(Inside(plan=PLAN))
    for name in ("own", "passing"):
        assert chain(text, name)[0].endswith("policy drop;")
    assert chain(text, "passing")[1] == 'iifname "vpn" oifname "vpn" goto clients'
    assert "between" not in text


def test_all_that_is_not_public_is_denied_in_both_families() -> None:
    text = rulesets.inside(Inside(plan=PLAN))
    for network in DENIED:
        assert str(network) in text


def test_ipv6_that_is_not_given_out_for_the_internet_is_denied() -> None:
    """Such as 4000::1, which no entry names; after what the operator allows."""
    allow = (Rule.parse("4000::/16"),)
    lines = chain(rulesets.inside(Inside(plan=PLAN, allow=allow)), "outwards")
    allowed = lines.index("ip6 daddr 4000::/16 goto limited")
    assert allowed < lines.index("ip6 daddr != 2000::/3 goto private")


def test_what_is_denied_goes_before_what_is_allowed_and_that_before_what_is_private() -> None:
    rules = Inside(
        plan=PLAN,
        allow=(Rule.parse("10.1.0.0/16:80-90"), Rule.parse("[fd00::]/8:443"), Rule.parse("10.2.0.0/16")),
        deny=(Rule.parse("10.1.1.1/32"), Rule.parse("*.example")),
    )  # fmt: skip
    lines = chain(rulesets.inside(rules), "outwards")
    order = [
        lines.index("ip daddr 10.1.1.1/32 goto denied"),
        lines.index("ip daddr 10.1.0.0/16 meta l4proto { tcp, udp } th dport 80-90 goto limited"),
        lines.index("ip6 daddr fd00::/8 meta l4proto { tcp, udp } th dport 443 goto limited"),
        lines.index("ip daddr 10.2.0.0/16 goto limited"),
        lines.index("ip daddr @denied4 goto private"),
    ]
    assert order == sorted(order)
    assert "example" not in "".join(lines)  # names are the resolver's


def test_limits_are_there_only_when_they_are_wanted() -> None:
    assert "limit rate over" not in "".join(chain(rulesets.inside(Inside(plan=PLAN)), "limited"))
    text = rulesets.inside(Inside(plan=PLAN, up=10_000_000, down=100, connections=7))
    limited = "".join(chain(text, "limited"))
    assert "over 10000000 bytes/second burst 2000000 bytes" in limited
    assert "ct count over 7 " in limited
    assert "over 100 bytes/second burst 524288 bytes" in "".join(chain(text, "inwards"))


def test_a_machine_that_forwarded_nothing_before_forwards_for_nobody_else() -> None:
    def passing(*alone: int) -> list[str]:
        side = Machine(
            tag="ab", device="vsxab", address4=PLAN.gateway4, address6=PLAN.gateway6, alone=alone
        )
        return [line for line in chain(rulesets.machine(side), "passing") if "nfproto" in line]

    assert passing() == []
    assert passing(6) == ['meta nfproto ipv6 iifname != "vsx*" oifname != "vsx*" drop']
    assert len(passing(4, 6)) == 2


def test_what_the_rules_count_is_told_by_client() -> None:
    def counting(name: str, *elements: tuple[int, int, int]) -> dict[str, object]:
        found = [
            {"elem": {"val": number, "counter": {"packets": packets, "bytes": amount}}}
            for number, packets, amount in elements
        ]
        return {"set": {"name": name, "elem": found}}

    listed = {
        "nftables": [
            {"metainfo": {}},
            {"counter": {"name": "foreign", "packets": 3, "bytes": 99}},
            {"set": {"name": "denied4", "elem": [{"prefix": {"addr": "10.0.0.0", "len": 8}}]}},
            {"set": {"name": "moved_down"}},
            counting("moved_up", (7, 2, 200), (9, 1, 50)),
            counting("blocked_mail", (7, 4, 240)),
        ]
    }
    found = figures.parse(listed)
    assert found.foreign == 3
    assert (found.of(7).up, found.of(7).packets_up, found.of(7).bytes) == (200, 2, 200)
    assert found.of(7).blocked == {Blocked.MAIL: 4}
    assert found.of(7).counted == ["moved_up", "blocked_mail"]
    assert found.of(9).up == 50
    assert found.of(8) == figures.Moved()


@pytest.mark.parametrize("reason", list(Blocked))
def test_every_reason_has_a_set_that_counts_and_a_verdict(reason: Blocked) -> None:
    text = rulesets.inside(Inside(plan=PLAN))
    assert f"set blocked_{reason} {{" in text
    assert f"chain {reason} {{ update @blocked_{reason} {{ meta mark }} " in text


def test_a_port_that_is_denied_everywhere_is_denied_in_both_families() -> None:
    rules = Inside(plan=PLAN, deny=(Rule.parse("*:22"),))
    line = "meta nfproto { ipv4, ipv6 } meta l4proto { tcp, udp } th dport 22 goto denied"
    assert line in chain(rulesets.inside(rules), "outwards")
