"""Routes, rules and addresses of a VPN client, in a table that the main one cannot reach into. Linux.

Everything goes to table `TABLE`, whatever the main table says: a route that is more specific there, such
as a rogue DHCP server hands out (CVE-2024-3661), counts for nothing. Before it come the node's links, by
their user (ADR 18), the tunnel's own addresses, and what is exempt. While there is no tunnel, the table
says "unreachable".

All rules bear `PROTOCOL`: by it they are found again whoever made them. Blocking; call it from a thread.
"""

from __future__ import annotations

import contextlib
import errno
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING, Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from apps.vpn.killswitch import MARK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apps.vpn.killswitch import Address, Network, Policy

PROTOCOL: Final = 118  # of our rules and routes; no other program's in rtnetlink.h
TABLE: Final = 51_900
NEAR: Final = 51_901  # the tunnel's own addresses: before anything that is exempt
MAIN: Final = 254
LINKS, OWN, EXEMPT, ALL = 5190, 5191, 5192, 5193  # preferences of the rules
# Packets between kernel and node: it takes them at once, whatever the line does, and queues by flow
# itself. Of 16, small ones were lost in bursts (8 % of UDP).
QUEUE: Final = 500
_FIRST, _LAST = 100, 0x7FFF_FFFF  # metrics
_NODAD: Final = 2  # IFA_F_NODAD: nobody else can have the address, so do not wait
_CONF: Final = Path("/proc/sys/net/ipv4/conf")
_VALID_MARK: Final = _CONF / "all" / "src_valid_mark"

Rule = dict[str, Any]


class RoutingError(Exception):
    """The kernel does not take a route or a rule; the text says which, and why."""


def block(policy: Policy, *, keep: bool = False) -> None:
    """Lead everything that is to go through the tunnel to where there is none yet; raises RoutingError.

    What is there of an earlier time is taken over, or taken away once the new rules stand; with `keep`
    routes into a tunnel stay.
    """
    with _kernel("rules") as ip:
        for version, family in _families():
            found, wanted = _rules(ip, family), _wanted(policy, version)
            if not keep:
                _flush(ip, family)
            for network in policy.tunnelled:
                if network.version == version:
                    _nowhere(ip, family, network)
            for rule in wanted:
                if rule not in found:
                    ip.rule("add", family=family, FRA_PROTOCOL=PROTOCOL, **rule)
            for rule in found:
                if rule not in wanted:
                    ip.rule("del", family=family, **rule)


def lead(
    policy: Policy, addresses: Sequence[Address], resolvers: Sequence[Address], mtu: int
) -> None:
    """Give the device its addresses, and lead what is to be tunnelled into it; raises RoutingError.

    A family without an address stays unreachable.
    """
    with _kernel(f"device {policy.tun}") as ip:
        index = _index(ip, policy.tun)
        ip.link("set", index=index, mtu=mtu, txqlen=QUEUE, state="up")
        _place(ip, index, addresses)
        versions = {address.version for address in addresses}
        for version, family in _families():
            ip.flush_routes(family=family, table=NEAR)
            if version not in versions:
                continue
            for resolver in resolvers:
                if resolver.version == version:
                    _into(ip, family, f"{resolver}/{resolver.max_prefixlen}", index, NEAR)
            for network in policy.tunnelled:
                if network.version == version:
                    _into(ip, family, str(network), index, TABLE)


def unblock() -> None:
    """Take all rules and routes of ours away; raises RoutingError."""
    with _kernel("rules") as ip:
        for _, family in _families():
            for rule in _rules(ip, family):
                ip.rule("del", family=family, **rule)
            _flush(ip, family)


def addresses(name: str) -> list[Address]:
    """Those of a device beside the link's own; none when it is not there. Raises RoutingError."""
    with _kernel(f"device {name}") as ip:
        texts = [
            each.get_attr("IFA_ADDRESS")
            for index in ip.link_lookup(ifname=name)
            for each in ip.get_addr(index=index)
        ]
    return [ip_address(text) for text in texts if not text.startswith("fe80:")]


def remove_device(name: str) -> None:
    """Remove a TUN device that its program has left behind, if there is one; raises RoutingError."""
    with _kernel(f"device {name}") as ip:
        for index in ip.link_lookup(ifname=name):
            ip.link("del", index=index)


def missing(policy: Policy) -> list[str]:
    """Rules that should be there and are not, for people."""
    with _kernel("rules") as ip:
        return [
            f"IPv{version} rule {rule['priority']}"
            for version, family in _families()
            for found in [_rules(ip, family)]
            for rule in _wanted(policy, version)
            if rule not in found
        ]


def left() -> int:
    """How many rules of ours there are."""
    with _kernel("rules") as ip:
        return sum(len(_rules(ip, family)) for _, family in _families())


def filtered() -> str | None:
    """What `src_valid_mark` is, where it lets the reverse path filter drop answers to links; else None.

    The filter looks routes up as user 0, and so in our table. With `src_valid_mark` it also looks at the
    mark, which the kill switch gives to what belongs to links (ADR 18).
    """
    filters = [path.read_text().strip() for path in _CONF.glob("*/rp_filter")]
    mark = _VALID_MARK.read_text().strip()
    return mark if mark == "0" and any(value != "0" for value in filters) else None


def mind_marks(value: str) -> None:
    """Set `src_valid_mark` for all interfaces; raises RoutingError."""
    try:
        _VALID_MARK.write_text(value)
    except OSError as error:
        raise RoutingError(f"{_VALID_MARK}: {error.strerror}; it is to be {value}") from None


@contextlib.contextmanager
def _kernel(what: str) -> Iterator[Any]:
    """A netlink socket, which has no types; its errors become RoutingError."""
    try:
        with IPRoute() as ip:
            yield ip
    except NetlinkError as error:
        if error.code in {errno.EPERM, errno.EACCES}:
            raise RoutingError(f"{what}: needs CAP_NET_ADMIN: run viscript as root") from None
        raise RoutingError(f"{what}: the kernel says: {error}") from None
    except OSError as error:
        raise RoutingError(f"{what}: {error.strerror or error}") from None


def _families() -> list[tuple[int, int]]:
    """What the kernel speaks, as (version, number)."""
    with_six = Path("/proc/net/if_inet6").exists()
    return [(4, AF_INET), (6, AF_INET6)] if with_six else [(4, AF_INET)]


def _wanted(policy: Policy, version: int) -> list[Rule]:
    exempt = [network for network in policy.exempt if network.version == version]
    return [
        {"priority": LINKS, "table": MAIN, "uid_range": f"{policy.uid}:{policy.uid}"},
        {"priority": LINKS, "table": MAIN, "fwmark": MARK},
        {"priority": OWN, "table": NEAR},
        *({"priority": EXEMPT, "table": MAIN, "dst": str(network)} for network in exempt),
        {"priority": ALL, "table": TABLE},
    ]


def _rules(ip: Any, family: int) -> list[Rule]:  # noqa: ANN401
    """Ours, as `_wanted` writes them."""
    found: list[Rule] = []
    for rule in ip.get_rules(family=family):
        if rule.get_attr("FRA_PROTOCOL") != PROTOCOL:
            continue
        said: Rule = {
            "priority": rule.get_attr("FRA_PRIORITY"), "table": rule.get_attr("FRA_TABLE"),
        }  # fmt: skip
        if (target := rule.get_attr("FRA_DST")) is not None:
            said["dst"] = f"{target}/{rule['dst_len']}"
        if (owner := rule.get_attr("FRA_UID_RANGE")) is not None:
            said["uid_range"] = owner
        if (mark := rule.get_attr("FRA_FWMARK")) is not None:
            said["fwmark"] = mark
        found.append(said)
    return found


def _index(ip: Any, name: str) -> int:  # noqa: ANN401
    for index in ip.link_lookup(ifname=name):
        return int(index)
    raise RoutingError(f"the device {name} is not there")


def _place(ip: Any, index: int, addresses: Sequence[Address]) -> None:  # noqa: ANN401
    """Exactly these, beside those of the link itself."""
    wanted = {str(address) for address in addresses}
    held = set()
    for each in ip.get_addr(index=index):
        text = each.get_attr("IFA_ADDRESS")
        if text in wanted:
            held.add(text)
        elif not text.startswith("fe80:"):
            ip.addr("del", index=index, address=text, prefixlen=each["prefixlen"])
    for address in addresses:
        if str(address) not in held:
            more = {"flags": _NODAD} if address.version == 6 else {}
            ip.addr(
                "add", index=index, address=str(address), prefixlen=address.max_prefixlen, **more
            )


def _into(ip: Any, family: int, network: str, index: int, table: int) -> None:  # noqa: ANN401
    ip.route(
        "replace",
        family=family,
        dst=network,
        oif=index,
        table=table,
        priority=_FIRST,
        proto=PROTOCOL,
    )


def _nowhere(ip: Any, family: int, network: Network) -> None:  # noqa: ANN401
    """What holds when the device is gone."""
    ip.route(
        "replace", family=family, dst=str(network), type="unreachable", table=TABLE, priority=_LAST,
        proto=PROTOCOL,
    )  # fmt: skip


def _flush(ip: Any, family: int) -> None:  # noqa: ANN401
    for table in (TABLE, NEAR):
        ip.flush_routes(family=family, table=table)
