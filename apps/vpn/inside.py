"""What is inside the namespace of an exit: the TUN device, the way out, rules, the resolver's sockets.

All of it runs in the thread of the namespace.
"""

import contextlib
import json
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from apps.vpn import figures, rulesets
from apps.vpn.addresses import Plan
from apps.vpn.figures import Figures, Moved
from apps.vpn.namespace import CannotSetUp, list_rules, nft, read_setting, write_setting
from apps.vpn.outside import LINK_PREFIX, V6_PREFIX
from apps.vpn.rulesets import TABLE, TUN, UPLINK, Inside
from apps.vpn.tun import NoTun, open_tun

# Packets between kernel and node, which takes them at once; of 16 some were lost in bursts (8 % of UDP).
QUEUE: Final = 500
NODAD: Final = 0x02  # linux/if_addr.h: nobody else can have it
DNS: Final = 53
BACKLOG: Final = 64
# Without these a client that is gone keeps its entries for five days. RFC 5382, 5: at least 2 h 4 min.
ESTABLISHED: Final = "7440"  # seconds
_SETTINGS: Final = {
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/addr_gen_mode": "1",
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/netfilter/nf_conntrack_tcp_timeout_established": ESTABLISHED,
}


@dataclass(frozen=True)
class Doors:
    """Where the resolver listens: a pair of sockets for each family."""

    udp: list[socket.socket]
    tcp: list[socket.socket]

    def close(self) -> None:
        for sock in (*self.udp, *self.tcp):
            sock.close()


def set_up(rules: Inside, mtu: int, inner4: IPv4Address, outer4: IPv4Address) -> int:
    """Make the namespace an exit; gives the descriptor of the TUN device. Raises CannotSetUp."""
    nft(rulesets.inside(rules))  # first: what is not forbidden yet must not be possible yet
    for name, value in _SETTINGS.items():
        with contextlib.suppress(CannotSetUp):  # a machine without IPv6
            write_setting(name, value)
    try:
        descriptor = open_tun(TUN)
    except NoTun as error:
        raise CannotSetUp(str(error)) from None
    try:
        with IPRoute() as netlink:
            _devices(netlink, rules.plan, mtu, inner4, outer4)
    except (NetlinkError, OSError) as error:
        raise CannotSetUp(f"inside the exit's namespace: {error}") from None
    return descriptor


def admit(plan: Plan, number: int) -> None:
    nft(rulesets.admitting(plan, number))


def dismiss(plan: Plan, number: int) -> Moved:
    """Let it in no more, and forget what was counted; gives that."""
    nft(rulesets.dismissing(plan, number))
    moved = read().of(number)
    nft("".join(f"delete element inet {TABLE} {name} {{ {number} }}\n" for name in moved.counted))
    return moved


def connections() -> int:
    """That are tracked in this namespace."""
    return int(read_setting("net/netfilter/nf_conntrack_count") or 0)


def read() -> Figures:
    """What was moved and blocked so far."""
    return figures.parse(json.loads(list_rules("table", "inet", TABLE)))


def doors(plan: Plan) -> Doors:
    """Raises CannotSetUp."""
    found = Doors([], [])
    try:
        for address in (plan.gateway4, plan.gateway6):
            found.udp.append(_bound(address, socket.SOCK_DGRAM))
            found.tcp.append(_bound(address, socket.SOCK_STREAM))
    except OSError as error:
        found.close()
        raise CannotSetUp(f"port {DNS} in the exit's namespace: {error.strerror}") from None
    return found


def _devices(
    netlink: IPRoute, plan: Plan, mtu: int, inner4: IPv4Address, outer4: IPv4Address
) -> None:
    index = {name: netlink.link_lookup(ifname=name)[0] for name in ("lo", TUN, UPLINK)}
    netlink.link("set", index=index["lo"], state="up")
    netlink.link("set", index=index[TUN], mtu=mtu, txqlen=QUEUE, state="up")
    netlink.link("set", index=index[UPLINK], state="up")
    netlink.addr("add", index=index[TUN], address=str(plan.gateway4), prefixlen=plan.v4.prefixlen)
    netlink.addr("add", index=index[UPLINK], address=str(inner4), prefixlen=LINK_PREFIX)
    netlink.route("add", dst="default", gateway=str(outer4))
    with contextlib.suppress(NetlinkError):  # a machine without IPv6
        netlink.addr("add", index=index[TUN], address=str(plan.gateway6),
                     prefixlen=plan.v6.prefixlen, flags=NODAD)  # fmt: skip
        netlink.addr("add", index=index[UPLINK], address=str(plan.link6[2]),
                     prefixlen=V6_PREFIX, flags=NODAD)  # fmt: skip
        netlink.route("add", family=socket.AF_INET6, dst="default", gateway=str(plan.link6[1]))


def _bound(address: IPv4Address | IPv6Address, kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, kind)
    try:
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((str(address), DNS))
        if kind is socket.SOCK_STREAM:
            sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
