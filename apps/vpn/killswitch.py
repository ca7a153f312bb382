"""The kill switch: the rules of nftables that let nothing leave but by the tunnel. Pure.

It stands from before the tunnel is there until `viscript vpn off`, whatever dies meanwhile: the kernel
holds it, no process. What it lets pass, in this order:

* nothing that is a question for a name (ports 53 and 853), but through the tunnel;
* what stays on the machine;
* what goes into the tunnel, from the address that the exit gave to this machine;
* what the node's links send: sockets of the node's own user (ADR 18), and answers from the ports where
  its links are taken;
* what keeps the link to the next router alive: DHCP, and neighbour discovery of IPv6;
* what was exempted (`Policy.exempt`).

All else is dropped and counted, whether this machine made it or passes it on for others. The chain is
in `postrouting`, after everything that could still change a packet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

TABLE: Final = "viscript_vpn"
FAMILY: Final = "inet"
MARK: Final = 0x7669  # of what belongs to links: only routes and the reverse path filter look at it
COUNTERS: Final = ("dns", "ipv4", "ipv6", "source")  # of what is blocked

# Where a machine may be at home. Only these are ever local: a network that hands out public addresses as
# its own would else see what is sent to them (TunnelCrack's LocalNet attack).
PRIVATE: Final[tuple[Network, ...]] = (
    *map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")),
    *map(IPv6Network, ("fc00::/7", "fe80::/10")),
)
# To everybody in the same network: what finds printers and the like.
NEARBY: Final[tuple[Network, ...]] = (
    *map(IPv4Network, ("224.0.0.0/24", "239.255.255.250/32")), IPv6Network("ff02::/16"),
)  # fmt: skip
_DISCOVERY: Final = ("nd-router-solicit", "nd-neighbor-solicit", "nd-neighbor-advert")
_ALL4, _ALL6 = IPv4Network("0.0.0.0/0"), IPv6Network("::/0")


@dataclass(frozen=True)
class Policy:
    """What is to go where."""

    tun: str  # the name of the device
    uid: int  # whose sockets the node's links are
    home: str = ""  # of whom the block is, for people
    only: tuple[Network, ...] = ()  # what goes through the tunnel; empty: everything
    exclude: tuple[Network, ...] = ()  # what does not
    lan: bool = False  # the private networks around do not, either
    own_dns: bool = False  # names are asked for outside, too

    @property
    def exempt(self) -> tuple[Network, ...]:
        """What may leave beside the tunnel."""
        return (*self.exclude, *((*PRIVATE, *NEARBY) if self.lan else ()))

    @property
    def tunnelled(self) -> tuple[Network, ...]:
        """What is to go through the tunnel."""
        return self.only or (_ALL4, _ALL6)


@dataclass(frozen=True)
class Now:
    """What changes while the kill switch stands."""

    addresses: tuple[Address, ...] = ()  # of this machine in the tunnel
    ports: frozenset[int] = field(default_factory=frozenset)  # where links are taken, TCP


def ruleset(policy: Policy, now: Now) -> str:
    """The table as `nft -f` reads it. Carried out at once or not at all: there is no moment without it."""
    parts = [
        f"add table {FAMILY} {TABLE}",
        f"delete table {FAMILY} {TABLE}",
        f"table {FAMILY} {TABLE} {{",
        f'  comment "{told(policy.home)}"',
        *(f"  counter {name} {{}}" for name in COUNTERS),
        *_sets(policy, now),
        *_arriving(policy),
        *_marking(policy),
        *_local(policy),
        *_leaving(policy),
        *_passing_on(policy),
        "}",
    ]
    return "\n".join(parts) + "\n"


def refreshed(now: Now) -> str:
    """Only the sets, where the table stands already: its counters go on."""
    lines = []
    for name, elements in _elements(now):
        lines.append(f"flush set {FAMILY} {TABLE} {name}")
        if elements:
            lines.append(f"add element {FAMILY} {TABLE} {name} {{ {', '.join(elements)} }}")
    return "\n".join(lines) + "\n"


def _elements(now: Now) -> Iterable[tuple[str, list[str]]]:
    yield "own4", [str(address) for address in now.addresses if address.version == 4]
    yield "own6", [str(address) for address in now.addresses if address.version == 6]
    yield "ports", [str(port) for port in sorted(now.ports)]


def _sets(policy: Policy, now: Now) -> list[str]:
    kinds = {"own4": "ipv4_addr", "own6": "ipv6_addr", "ports": "inet_service"}
    lines = [_set(name, kinds[name], elements) for name, elements in _elements(now)]
    for name, networks in (("exempt", policy.exempt), ("only", policy.only)):
        for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
            elements = [str(network) for network in networks if network.version == version]
            lines.append(_set(f"{name}{version}", kind, elements, "flags interval; auto-merge; "))
    return lines


def _arriving(policy: Policy) -> list[str]:
    """Who is beside us may not talk to our address in the tunnel (CVE-2019-14899)."""
    foreign = f"iifname != {{ lo, {policy.tun} }}"
    return [
        "  chain arriving {",
        "    type filter hook prerouting priority raw; policy accept;",
        f"    {foreign} ip daddr @own4 drop",
        f"    {foreign} ip6 daddr @own6 drop",
        "  }",
    ]


def _marking(policy: Policy) -> list[str]:
    """What comes back to links is known by its connection, before routes are looked up for it (ADR 18).

    The mark lets nothing out: that is for the user alone to do.
    """
    return [
        "  chain marking {",
        "    type filter hook output priority mangle; policy accept;",
        f"    meta skuid {policy.uid} meta l4proto tcp ct mark set {MARK}",
        "  }",
        "  chain returning {",
        "    type filter hook prerouting priority mangle; policy accept;",
        f"    ct direction reply ct mark {MARK} meta mark set {MARK}",
        f"    fib daddr type local tcp dport @ports meta mark set {MARK}",
        "  }",
    ]


def _local(policy: Policy) -> list[str]:
    """Connections from an address of an earlier lease can never go on: tell those that still send."""
    stale = f"oifname {policy.tun} meta l4proto tcp"
    return [
        "  chain output {",
        "    type filter hook output priority filter; policy accept;",
        f"    {stale} ip saddr != @own4 counter name source reject with tcp reset",
        f"    {stale} ip6 saddr != @own6 counter name source reject with tcp reset",
        "  }",
    ]


def _leaving(policy: Policy) -> list[str]:
    lines = [
        "  chain leaving {",
        f"    type filter hook postrouting priority 300; policy {'accept' if policy.only else 'drop'};",
        "    oifname lo accept",
        f"    oifname {policy.tun} ip saddr @own4 accept",
        f"    oifname {policy.tun} ip6 saddr @own6 accept",
        f"    oifname {policy.tun} counter name source drop",
    ]
    if not policy.own_dns:
        lines.append("    meta l4proto { tcp, udp } th dport { 53, 853 } counter name dns drop")
    lines += [
        f"    meta skuid {policy.uid} meta l4proto tcp accept",
        "    ct direction reply ct state established tcp sport @ports accept",
        "    ip daddr @exempt4 accept",
        "    ip6 daddr @exempt6 accept",
        "    udp sport 68 udp dport 67 accept",
        "    ip6 daddr { fe80::/10, ff02::1:2 } udp sport 546 udp dport 547 accept",
        f"    icmpv6 type {{ {', '.join(_DISCOVERY)} }} ip6 hoplimit 255 accept",
    ]
    if policy.only:
        lines += [
            "    ip daddr @only4 counter name ipv4 drop",
            "    ip6 daddr @only6 counter name ipv6 drop",
        ]
    else:
        lines += [
            "    meta nfproto ipv4 counter name ipv4 drop",
            "    meta nfproto ipv6 counter name ipv6 drop",
        ]
    return [*lines, "  }"]


def _passing_on(policy: Policy) -> list[str]:
    """What this machine passes on for others, such as containers, gets its address in the tunnel.

    So does what is bound to another address of its own, which so stays unknown at the exit.
    """
    return [
        "  chain passing {",
        "    type nat hook postrouting priority srcnat; policy accept;",
        f"    oifname {policy.tun} ip saddr != @own4 masquerade",
        f"    oifname {policy.tun} ip6 saddr != @own6 masquerade",
        "  }",
    ]


def _set(name: str, kind: str, elements: Sequence[str], flags: str = "") -> str:
    filled = f"elements = {{ {', '.join(elements)} }}; " if elements else ""
    return f"  set {name} {{ type {kind}; {flags}{filled}}}"


def told(home: str) -> str:
    """A home as the table names it: nft's strings know no escapes and have an end."""
    return "".join(letter for letter in home if letter.isprintable() and letter != '"')[-120:]
