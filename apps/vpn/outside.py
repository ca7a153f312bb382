"""The machine's side of an exit: a pair of devices into the namespace, its rules, forwarding.

All of it runs in a thread of the machine's own network namespace. What is here bears the exit's tag, so
that `put_back` finds what one that was killed left behind.
"""

import contextlib
import hashlib
import json
import socket
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from apps.egress.rules import Rule
from apps.vpn import forwarding, rulesets
from apps.vpn.addresses import Plan
from apps.vpn.namespace import CannotSetUp, list_rules, nft, write_setting
from apps.vpn.rulesets import PREFIX, TABLES, UPLINK

LINKS: Final = IPv4Network("169.254.64.0/18")  # link-local: no network of anybody's has it
LINK_PREFIX: Final = 30
V6_PREFIX: Final = 126
TAG: Final = 8  # characters


def tag_of(*names: str) -> str:
    """What devices and tables of an exit bear: the same at every start, another one for other exits."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()[:TAG]


class Taken(Exception):
    """The same exit is there already; the text says which."""


class Machine:
    """The outer half of one exit."""

    def __init__(self, tag: str, plan: Plan, allow: tuple[Rule, ...], mtu: int) -> None:
        self.tag = tag
        self.device = PREFIX + tag
        self._plan = plan
        self._allow = allow
        self._mtu = mtu
        self._link = LINKS  # a /30 of it, once it is set up
        self._rules = ""
        self._lock: socket.socket | None = None

    @property
    def outer4(self) -> IPv4Address:
        """The machine's own address on the pair."""
        return self._link[1]

    @property
    def inner4(self) -> IPv4Address:
        return self._link[2]

    def set_up(self, namespace: int) -> None:
        """Lead into the namespace with this descriptor; raises CannotSetUp, Taken."""
        self._lock = _lock(self.tag)
        try:
            with IPRoute() as netlink:
                _remove(netlink, self.device)  # of one that was killed
                self._link = _free_link(netlink, self.tag)
                self._join(netlink, namespace)
        except (NetlinkError, OSError) as error:
            raise CannotSetUp(f"network device {self.device}: {_why(error)}") from None
        before = forwarding.note(self.tag)
        self._rules = rulesets.machine(
            rulesets.Machine(
                tag=self.tag,
                device=self.device,
                address4=self.inner4,
                address6=self._plan.link6[2],
                allow=self._allow,
                alone=tuple(version for version in (4, 6) if not before.forwarded(version)),
            )
        )
        nft(self._rules)  # before anything is passed on
        forwarding.turn_on(before)

    def keep(self) -> bool:
        """See that the rules are there still; whether they had to be put there again.

        A firewall that is loaded again takes away all that is not its own.
        """
        if rulesets.TABLES + self.tag in _tables():
            return False
        nft(self._rules)
        return True

    def take_down(self) -> None:
        """Leave nothing behind; raises CannotSetUp."""
        with contextlib.suppress(NetlinkError, OSError), IPRoute() as netlink:
            _remove(netlink, self.device)
        nft(rulesets.taking_away(TABLES + self.tag))
        forwarding.put_back(self.tag, _alive())
        if self._lock is not None:
            self._lock.close()

    def _join(self, netlink: IPRoute, namespace: int) -> None:
        netlink.link(
            "add", ifname=self.device, kind="veth", mtu=self._mtu,
            peer={"ifname": UPLINK, "net_ns_fd": namespace, "mtu": self._mtu},
        )  # fmt: skip
        [index] = netlink.link_lookup(ifname=self.device)
        with contextlib.suppress(CannotSetUp):  # a machine without IPv6
            write_setting(f"net/ipv6/conf/{self.device}/addr_gen_mode", "1")
        netlink.addr("add", index=index, address=str(self.outer4), prefixlen=LINK_PREFIX)
        with contextlib.suppress(NetlinkError):
            netlink.addr("add", index=index, address=str(self._plan.link6[1]),
                         prefixlen=V6_PREFIX, flags=0x02)  # fmt: skip # IFA_F_NODAD
        netlink.link("set", index=index, state="up")


def put_back() -> list[str]:
    """Take away what exits left behind that are not there any more; gives what was found."""
    gone = [tag for tag in _tagged() if tag not in _alive()]
    for tag in gone:
        nft(rulesets.taking_away(TABLES + tag))
    before = forwarding.on_record()
    for tag in {*gone, *(before.exits if before else ())} - _alive():
        forwarding.put_back(tag, _alive())
        if tag not in gone:
            gone.append(tag)
    return gone


def blockers() -> list[str]:
    """Chains of other tables that drop what they do not know of what is passed on."""
    found = []
    for entry in json.loads(list_rules("chains"))["nftables"]:
        chain = entry.get("chain", {})
        if chain.get("hook") == "forward" and chain.get("policy") == "drop":
            found.append(f"{chain['family']} {chain['table']} {chain['name']}")
    return found


def _lock(tag: str) -> socket.socket:
    """Be the only one with this tag in this network namespace, for as long as the process lives."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        lock.bind(f"\0{TABLES}{tag}")  # an abstract name: it has no file that could be left behind
    except OSError:
        lock.close()
        raise Taken("another vpn-server of this node and port runs: stop it first") from None
    return lock


def _tables() -> set[str]:
    listed = json.loads(list_rules("tables"))["nftables"]
    tables = [entry["table"] for entry in listed if "table" in entry]
    return {table["name"] for table in tables if table["family"] == "inet"}


def _tagged() -> list[str]:
    return [name.removeprefix(TABLES) for name in _tables() if name.startswith(TABLES)]


def _alive() -> set[str]:
    """Tags of the exits whose devices are there: they go with the namespace, whatever ends it."""
    with IPRoute() as netlink:
        names = [link.get("ifname") for link in netlink.get_links()]
    return {name.removeprefix(PREFIX) for name in names if name and name.startswith(PREFIX)}


def _remove(netlink: IPRoute, device: str) -> None:
    for index in netlink.link_lookup(ifname=device):
        netlink.link("del", index=index)


def _free_link(netlink: IPRoute, tag: str) -> IPv4Network:
    """A /30 that no device of the machine has."""
    taken = {IPv4Address(address.get("local")) for address in netlink.get_addr(family=2)}
    links = list(LINKS.subnets(new_prefix=LINK_PREFIX))
    first = int(tag, 16) % len(links)
    for link in links[first:] + links[:first]:
        if not taken.intersection(link):
            return link
    raise CannotSetUp(f"all of {LINKS} is taken on this machine")


def _why(error: Exception) -> str:
    number = getattr(error, "code", None) or getattr(error, "errno", 0)
    hint = "; it needs CAP_NET_ADMIN: run viscript as root" if number in {1, 13} else ""
    return f"{error}{hint}"
