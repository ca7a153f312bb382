"""The rules of an exit as text for `nft -f`: those inside its namespace, and those of its machine.

Inside, a packet of a client gets the client's number as its mark, by its source address; a packet for a
client by its destination. All that is counted or limited goes by that number, so a client is one and
the same over IPv4 and IPv6. What has no number is dropped: no packet with a foreign source goes on, even
if the node let it out of the tunnel. Reasons are told as counters, a set each, keyed by number.

On the machine there is one table that names nothing but the exit's own device. Where forwarding was off
before, it keeps everything else from being forwarded, as it was.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from apps.egress.rules import ALL_PORTS, DENIED, GLOBAL, MAIL_PORTS, Rule
from apps.vpn.addresses import Plan

TUN: Final = "vpn"  # devices inside
UPLINK: Final = "up"
TABLE: Final = "exit"  # of the rules inside
PREFIX: Final = "vsx"  # of the devices outside, of all exits on a machine
TABLES: Final = "viscript_exit_"  # of the tables outside

# Small enough to go on when rates are low, large enough that one super-packet does not empty it.
MIN_BURST: Final = 512 * 1024  # bytes
BURST: Final = 0.2  # seconds of the rate
ASKS: Final = 200  # packets a second of a client to the resolver
PINGS: Final = 50  # a second, to the exit's own address
MAX_CLIENTS: Final = 65_536  # elements of a set


class Blocked(StrEnum):
    """Why a packet of a client was not let through."""

    DENIED = "denied"  # by an entry of the operator's
    PRIVATE = "private"  # to an address that is not public
    MAIL = "mail"  # to a port that spam goes to
    CLIENTS = "clients"  # to another client
    PROTOCOL = "protocol"  # neither TCP nor UDP nor ICMP
    CONNECTIONS = "connections"  # too many at once
    RATE = "rate"  # too many bytes a second


@dataclass(frozen=True, kw_only=True)
class Inside:
    """What the namespace of an exit lets through; 0 is without limit."""

    plan: Plan
    allow: tuple[Rule, ...] = ()  # those of names say nothing here: names are the resolver's
    deny: tuple[Rule, ...] = ()
    up: int = 0  # bytes/s of a client
    down: int = 0
    connections: int = 0  # of a client, at once
    between: bool = False  # clients may reach each other


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine's side of the pair of devices that leads into the namespace."""

    tag: str  # of the exit
    device: str
    address4: IPv4Address  # of the other end, inside
    address6: IPv6Address
    allow: tuple[Rule, ...] = ()
    alone: tuple[int, ...] = (
        4,
        6,
    )  # IP versions that were not forwarded before: none but ours is now

    @property
    def table(self) -> str:
        return TABLES + self.tag


def inside(rules: Inside) -> str:
    """The table of the namespace."""
    parts = (_sets(), _arriving(rules.plan), _own(rules.plan), _passing(rules), _verdicts(rules))
    return f"table inet {TABLE} {{\n{''.join(parts)}}}\n"


def _sets() -> str:
    return f"""\
  map numbers4 {{ type ipv4_addr : mark; }}
  map numbers6 {{ type ipv6_addr : mark; }}
  set denied4 {{ type ipv4_addr; flags interval; elements = {{ {_denied(4)} }}; }}
  set denied6 {{ type ipv6_addr; flags interval; elements = {{ {_denied(6)} }}; }}
  set rate_up {{ type mark; size {MAX_CLIENTS}; flags dynamic; }}
  set rate_down {{ type mark; size {MAX_CLIENTS}; flags dynamic; }}
  set rate_asks {{ type mark; size {MAX_CLIENTS}; flags dynamic; }}
  set connections {{ type mark; size {MAX_CLIENTS}; flags dynamic; }}
{_lines(2, [_counting(name) for name in counters()])}
  counter foreign {{ }}
"""


def _arriving(plan: Plan) -> str:
    """Out of the tunnel: by whom, and whether of anybody at all."""
    return f"""\
  chain arriving {{
    type filter hook prerouting priority raw; policy accept;
    iifname != "{TUN}" return
    meta mark set ip saddr map @numbers4
    meta mark set ip6 saddr map @numbers6
    meta mark 0 counter name foreign drop
    fib daddr type {{ broadcast, multicast, anycast }} drop
    udp dport 53 ip daddr {plan.gateway4} notrack
    udp dport 53 ip6 daddr {plan.gateway6} notrack
  }}
"""


def _own(plan: Plan) -> str:
    """For the exit itself: its resolver answers, and pings. Nothing listens where it leads outside."""
    over = f"limit rate over {ASKS}/second burst {2 * ASKS} packets"
    asks = f"update @rate_asks {{ meta mark {over} }}"
    return f"""\
  chain own {{
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    iifname "{TUN}" meta l4proto {{ tcp, udp }} th dport 53 {asks} drop
    iifname "{TUN}" meta l4proto {{ tcp, udp }} th dport 53 ip daddr {plan.gateway4} accept
    iifname "{TUN}" meta l4proto {{ tcp, udp }} th dport 53 ip6 daddr {plan.gateway6} accept
    iifname "{TUN}" icmp type echo-request limit rate {PINGS}/second accept
    iifname "{TUN}" icmpv6 type echo-request limit rate {PINGS}/second accept
    iifname "{UPLINK}" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
  }}
  chain answers {{
    type filter hook output priority raw; policy accept;
    oifname "{TUN}" udp sport 53 notrack
  }}
"""


def _passing(rules: Inside) -> str:
    """Through the exit, outwards and back."""
    return f"""\
  chain passing {{
    type filter hook forward priority filter; policy drop;
    iifname "{TUN}" oifname "{TUN}" {"accept" if rules.between else f"goto {Blocked.CLIENTS}"}
    iifname "{TUN}" oifname "{UPLINK}" goto outwards
    iifname "{UPLINK}" oifname "{TUN}" ct state established,related goto inwards
  }}
  chain outwards {{
    ct state invalid drop
    meta l4proto != {{ tcp, udp, icmp, icmpv6 }} goto {Blocked.PROTOCOL}
{_lines(4, [f"{_match(rule)} goto {Blocked.DENIED}" for rule in _placed(rules.deny)])}
{_lines(4, [f"{_match(rule)} goto limited" for rule in _placed(rules.allow)])}
    ip daddr @denied4 goto {Blocked.PRIVATE}
    ip6 daddr @denied6 goto {Blocked.PRIVATE}
    ip6 daddr != {GLOBAL} goto {Blocked.PRIVATE}
    meta l4proto {{ tcp, udp }} th dport {{ {_mail_ports()} }} goto {Blocked.MAIL}
    goto limited
  }}
  chain inwards {{
    meta mark set ip daddr map @numbers4
    meta mark set ip6 daddr map @numbers6
    meta mark 0 drop
{_lines(4, [_rate("rate_down", rules.down)] if rules.down else [])}
    update @moved_down {{ meta mark }}
    accept
  }}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{UPLINK}" masquerade fully-random
  }}
"""


def _verdicts(rules: Inside) -> str:
    return f"""\
  chain limited {{
{_lines(4, _limits(rules))}
    update @moved_up {{ meta mark }}
    accept
  }}
{_lines(2, [_refusing(reason) for reason in Blocked])}
"""


def counters() -> list[str]:
    """The sets that count, by the number of a client."""
    return ["moved_up", "moved_down", *(f"blocked_{reason}" for reason in Blocked)]


def admitting(plan: Plan, number: int) -> str:
    """From now on there is a client of this number."""
    return (
        f"add element inet {TABLE} numbers4 {{ {plan.address4(number)} : {number} }}\n"
        f"add element inet {TABLE} numbers6 {{ {plan.address6(number)} : {number} }}\n"
    )


def dismissing(plan: Plan, number: int) -> str:
    """There is no client of this number any more."""
    return (
        f"delete element inet {TABLE} numbers4 {{ {plan.address4(number)} }}\n"
        f"delete element inet {TABLE} numbers6 {{ {plan.address6(number)} }}\n"
    )


def machine(rules: Machine) -> str:
    """The table of the machine, in the place of one of the same name."""
    device = rules.device
    other = f'iifname != "{PREFIX}*" oifname != "{PREFIX}*" drop'
    alone = [f"meta nfproto ipv{version} {other}" for version in rules.alone]
    allowed = [f"{_match(rule)} accept" for rule in _placed(rules.allow)]
    return f"""
{taking_away(rules.table)}
table inet {rules.table} {{
  chain own {{
    type filter hook input priority filter - 10; policy accept;
    iifname != "{device}" return
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
{_lines(4, allowed)}
    reject with icmpx type admin-prohibited
  }}
  chain passing {{
    type filter hook forward priority filter - 10; policy accept;
    oifname "{device}" iifname "{PREFIX}*" drop
    tcp flags syn iifname "{device}" tcp option maxseg size set rt mtu
    tcp flags syn oifname "{device}" tcp option maxseg size set rt mtu
    oifname "{device}" ct state established,related accept
    oifname "{device}" drop
{_lines(4, alone)}
  }}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {rules.address4} masquerade fully-random
    ip6 saddr {rules.address6} masquerade fully-random
  }}
}}
"""


def taking_away(table: str) -> str:
    """Delete a table whether it is there or not."""
    return f"table inet {table}\ndelete table inet {table}"


def _denied(version: int) -> str:
    return ", ".join(str(network) for network in DENIED if network.version == version)


def _counting(name: str) -> str:
    return f"set {name} {{ type mark; size {MAX_CLIENTS}; flags dynamic; counter; }}"


def _mail_ports() -> str:
    return ", ".join(map(str, sorted(MAIL_PORTS)))


def _limits(rules: Inside) -> list[str]:
    lines = []
    if rules.up:
        lines.append(_rate("rate_up", rules.up))
    if rules.connections:
        lines.append(
            f"ct state new add @connections {{ meta mark ct count over {rules.connections} }} "
            f"goto {Blocked.CONNECTIONS}"
        )
    return lines


def _rate(name: str, rate: int) -> str:
    burst = max(MIN_BURST, int(rate * BURST))
    over = f"limit rate over {rate} bytes/second burst {burst} bytes"
    return f"update @{name} {{ meta mark {over} }} goto {Blocked.RATE}"


def _refusing(reason: Blocked) -> str:
    # A packet too many is no reason to tell anybody: its loss is the message.
    verdict = "drop" if reason is Blocked.RATE else "reject with icmpx type admin-prohibited"
    return f"chain {reason} {{ update @blocked_{reason} {{ meta mark }} {verdict}; }}"


def _placed(rules: tuple[Rule, ...]) -> list[Rule]:
    """Those that a packet can be held against: all but names."""
    return [rule for rule in rules if rule.network is not None or rule.everywhere]


def _match(rule: Rule) -> str:
    if rule.network is None:
        place = "meta nfproto { ipv4, ipv6 }"
    else:
        place = f"{'ip' if rule.network.version == 4 else 'ip6'} daddr {rule.network}"
    if rule.ports == ALL_PORTS:
        return place
    ports = f"{rule.ports[0]}-{rule.ports[-1]}" if len(rule.ports) > 1 else f"{rule.ports[0]}"
    return f"{place} meta l4proto {{ tcp, udp }} th dport {ports}"


def _lines(indent: int, lines: list[str]) -> str:
    return "\n".join(" " * indent + line for line in lines)
