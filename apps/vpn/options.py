"""The command line of vpn-server."""

import argparse
import re
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address
from typing import Final, Literal

from apps.egress.admission import EVERYBODY, allowed, key_or_everybody
from apps.egress.rules import Rule, RuleError
from apps.vpn.addresses import BadNetwork, client_network
from apps.vpn.messages import MAX_MTU, MIN_MTU, PORT, Limits
from bus.arguments import ArgumentParser

MTU: Final = 1500
CLIENTS: Final = 128
CONNECTIONS: Final = 4096  # of a client; a browser has some hundreds
MAX_CLIENTS: Final = 4096
_UNITS: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_AMOUNT: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([kMGT]?)")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the operator wants."""

    node: str
    port: int
    allow_key: tuple[str, ...]  # keys of nodes, or EVERYBODY
    allow: tuple[Rule, ...]
    deny: tuple[Rule, ...]
    rate: int  # bytes/s of a client, each way; 0: no limit
    connections: int
    volume: int  # bytes of a client in a day; 0: no limit
    clients: int
    between: bool
    network: IPv4Network | None
    mtu: int
    offload: Literal["auto", "off"]
    resolver: tuple[tuple[str, int], ...]

    @property
    def keys(self) -> list[str] | None:
        return allowed(self.allow_key)

    @property
    def limits(self) -> Limits:
        return Limits(self.rate, self.rate, self.connections, self.volume)


def parse(arguments: list[str], doc: str) -> Options | None:
    """None: only put back what exits left behind that were killed."""
    parser = ArgumentParser(prog="vpn-server", description=doc.splitlines()[0])
    add = parser.add_argument
    add("--node", help="name of the local node")
    add("--allow-key", type=key_or_everybody, action="append", default=[], metavar=f"KEY|{EVERYBODY}",
        help="a node whose clients may leave here; may be repeated")  # fmt: skip
    add("--allow", type=_network, action="append", default=[], metavar="CIDR[:PORT[-PORT]]",
        help="let clients reach this place, which is not public; may be repeated")  # fmt: skip
    add("--deny", type=_rule, action="append", default=[], metavar="CIDR|NAME[:PORT[-PORT]]",
        help="do not let them reach this one, or resolve this name; may be repeated")  # fmt: skip
    add(
        "--rate",
        type=_amount,
        default=0,
        metavar="BYTES",
        help="a second of a client, each way: 10M",
    )
    add(
        "--connections", type=int, default=CONNECTIONS, help=f"of a client, at once ({CONNECTIONS})"
    )
    add(
        "--volume", type=_amount, default=0, metavar="BYTES", help="of a client in a day (UTC): 50G"
    )
    add("--clients", type=int, default=CLIENTS, help=f"at once ({CLIENTS})")
    add("--between", action="store_true", help="clients may reach each other")
    add("--network", type=_clients, metavar="CIDR", help="of the clients' addresses: 10.86.0.0/16")
    add("--mtu", type=int, default=MTU, help=f"of the tunnel ({MTU})")
    add("--offload", choices=("auto", "off"), default="auto", help="packets larger than the MTU")
    add("--resolver", type=_server, action="append", default=[], metavar="IP[:PORT]",
        help="instead of those of /etc/resolv.conf; may be repeated")  # fmt: skip
    add("--port", type=int, default=PORT, help=f"of the node ({PORT})")
    add(
        "--put-back", action="store_true", help="only remove what a killed one left behind, and end"
    )
    found = vars(parser.parse_args(arguments))
    if found.pop("put_back"):
        return None
    _check(parser, found)
    lists = ("allow_key", "allow", "deny", "resolver")
    return Options(**{**found, **{name: tuple(found[name]) for name in lists}})


def _check(parser: argparse.ArgumentParser, found: dict[str, object]) -> None:
    if not found["node"]:
        parser.error("--node is missing: the name of the node at which clients leave the mesh")
    if not found["allow_key"]:
        parser.error(f"--allow-key is missing: keys of nodes, or {EVERYBODY}")
    bounds = {
        "port": (1, 65535), "mtu": (MIN_MTU, MAX_MTU), "clients": (1, MAX_CLIENTS),
        "connections": (1, 10**6),
    }  # fmt: skip
    for name, (least, most) in bounds.items():
        value = found[name]
        if not isinstance(value, int) or not least <= value <= most:
            parser.error(f"--{name} {value}: it goes from {least} to {most}")
    network, clients = found["network"], found["clients"]
    if isinstance(network, IPv4Network) and isinstance(clients, int):
        room = network.num_addresses - 3  # of the network, the exit, the broadcast
        if clients > room:
            parser.error(f"--clients {clients}: {network} has addresses for {room}")


def _rule(text: str) -> Rule:
    try:
        return Rule.parse(text)
    except RuleError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _network(text: str) -> Rule:
    rule = _rule(text)
    if rule.network is None:
        raise argparse.ArgumentTypeError(f"{text!r}: a VPN sees addresses only; name a network")
    if rule.network.is_loopback:
        raise argparse.ArgumentTypeError(
            f"{text!r}: what listens on the loopback of this machine is not reached through the VPN; "
            "forward-server leads there"
        )
    return rule


def _clients(text: str) -> IPv4Network:
    try:
        return client_network(text)
    except BadNetwork as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _amount(text: str) -> int:
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes, such as 10M")
    return int(float(match[1]) * _UNITS[match[2]])


def _server(text: str) -> tuple[str, int]:
    host, port = text, "53"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        if not 1 <= int(port) <= 65535:
            raise ValueError
        return str(ip_address(host)), int(port)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not IP or IP:PORT") from None
