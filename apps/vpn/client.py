"""vpn-client: leads this machine's traffic to an exit of the mesh, and lets nothing out beside it.

    vpn-client --node alpha EXIT…

EXIT is the name or key of a node where a vpn-server is, or `fastest`. Several are tried in this order.
The block stands before the tunnel does, and stays when this program ends, however it ends: who wants it away
says `viscript vpn off`.

Exit codes: 0 stopped, 2 wrong arguments, 77 lacks CAP_NET_ADMIN or a program of the system, 9 the VPN of
another home is on, 8 the machine does not take what is to be changed.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
import time
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from apps.vpn import standing
from apps.vpn.holding import Device, Holder, SwitchedOff
from apps.vpn.killswitch import Policy
from apps.vpn.leasing import Place
from apps.vpn.machine import Incapable, Machine, MachineError, Taken
from apps.vpn.messages import MAX_MTU, MIN_MTU
from apps.vpn.tun import MAX_NAME, NoTun, open_tun
from bus import BusError, egress, logs, process
from bus.arguments import ArgumentParser
from nodes import api, offers
from nodes.client import Node
from nodes.upkeep import keep_node, run_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apps.vpn.killswitch import Network
    from bus import Bus, Request
    from bus.process import Participant

log = logging.getLogger("vpn")

FASTEST: Final = "fastest"
OFFER: Final = "vpn"  # what exits announce to the tracker
TUN: Final = "viscript0"
NOT_CAPABLE: Final = 77  # sysexits' EX_NOPERM: starting it again does not heal it
CONFLICT: Final = 9
MACHINE: Final = 8
MAX_EXITS: Final = 16  # of those the tracker knows are asked
ASKING: Final = 3.0  # seconds for the tracker


class Exits:
    """Which exits there are: those that were named, or what the tracker lists."""

    def __init__(self, bus: Bus, named: Sequence[str]) -> None:
        self._bus = bus
        self._named = named
        self._listed: list[Place] = []  # last; used while no tracker answers

    @property
    def fastest(self) -> bool:
        return FASTEST in self._named

    async def find(self, node: Node) -> list[Place]:
        named = [Place(name) for name in self._named if name != FASTEST]
        if not self.fastest:
            return named
        try:
            self._listed = await self._ask(node)
        except (BusError, api.BadBody) as error:
            log.info("the tracker does not answer: %s", error)
        return [*named, *self._listed][:MAX_EXITS]

    async def _ask(self, node: Node) -> list[Place]:
        body = await self._bus.request(offers.FIND, api.pack(offers.Search(OFFER)), timeout=ASKING)
        found = []
        for each in api.unpack(body, offers.Found).offers:
            try:
                said = offers.verified(each, time.time())
            except offers.BadOffer as problem:
                log.info("left out what the tracker says of %s: %s", each.key, problem)
                continue
            if said.type == OFFER and each.key != node.key:
                found.append(Place(each.key, each.port, offers.load(said.labels)))
        return found


async def main(
    participant: Participant, options: argparse.Namespace, policy: Policy, descriptor: int
) -> int:
    path = participant.run_dir / f"node-{options.node}.sock"
    exits = Exits(participant.bus, options.exits)
    device = Device(descriptor, options.mtu, options.offload)
    machine = Machine(participant.environment.home)
    holder = Holder(machine, policy, device, exits.find, fastest=exits.fastest)

    def status(_request: Request) -> bytes:
        return api.pack(holder.standing.told())

    participant.bus.answer(standing.SUBJECT, status)

    async def use(node: Node) -> None:
        await holder.use(node, path)

    try:
        await run_until(participant.stopping, keep_node(path, participant.app, use))
    except Incapable as error:
        log.error("%s", error)  # noqa: TRY400 - the user's business, no traceback
        return NOT_CAPABLE
    except SwitchedOff:
        log.info("switched off: everything is as it was")
        return 0
    log.info("stopped; the block stays until: viscript vpn off")
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    first_line = (__doc__ or "").splitlines()[0]
    parser = ArgumentParser(prog="vpn-client", description=first_line)
    parser.add_argument(
        "exits", nargs="+", metavar="EXIT", help=f"name or key of a node, or: {FASTEST}"
    )
    parser.add_argument("--node", required=True, help="name of the local node")
    parser.add_argument(
        "--only", action="append", type=_network, default=[], metavar="NETWORK",
        help="lead only this through the tunnel; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--exclude", action="append", type=_network, default=[], metavar="NETWORK",
        help="do not lead this through the tunnel; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--lan",
        action="store_true",
        help="nor the private networks around (10.0.0.0/8 and the like)",
    )
    parser.add_argument(
        "--own-dns", action="store_true", help="go on asking the system's resolvers for names"
    )
    parser.add_argument(
        "--offload", choices=("auto", "off"), default="auto", help="super-packets (auto)"
    )
    parser.add_argument("--mtu", type=_mtu, default=1500, help="until the exit says another (1500)")
    parser.add_argument("--tun", type=_name, default=TUN, metavar="NAME", help=f"device ({TUN})")
    parser.add_argument(
        "--egress-uid", type=int, default=egress.UID, metavar="UID",
        help=f"whose the links of the node are ({egress.UID})",
    )  # fmt: skip
    return parser.parse_args(arguments)


def _network(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; want for instance 192.0.2.0/24") from None
    if not network.prefixlen:
        raise argparse.ArgumentTypeError(f"{text} is everything")
    return network


def _mtu(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not MIN_MTU <= int(text) <= MAX_MTU:
        raise argparse.ArgumentTypeError(f"{text!r} is not from {MIN_MTU} to {MAX_MTU}")
    return int(text)


def _name(text: str) -> str:
    if not text.isascii() or not text.isalnum() or len(text) > MAX_NAME:
        raise argparse.ArgumentTypeError(f"{text!r}: letters and digits, at most {MAX_NAME}")
    return text


def prepare(options: argparse.Namespace, home: Path) -> tuple[Policy, int]:
    """Install the block, then open the device; raises Incapable, Taken, NoTun, MachineError.

    What was off before is off again when that fails.
    """
    policy = Policy(
        options.tun, options.egress_uid, str(home), tuple(options.only), tuple(options.exclude),
        options.lan, options.own_dns,
    )  # fmt: skip
    machine = Machine(home)
    fresh = not machine.is_on
    try:
        machine.block(policy, options.exits, time.time())
        return policy, open_tun(policy.tun)
    except (NoTun, *MachineError):
        if fresh:
            machine.unblock()
        raise


def start() -> None:
    """Block before joining the bus: the broker may be away just now, and then nothing may leave."""
    logs.configure()
    options = parse(sys.argv[1:])
    home = Path(os.environ.get("VISCRIPT_HOME", "."))
    try:
        policy, descriptor = prepare(options, home)
    except (Incapable, Taken, NoTun, *MachineError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the program's own output
        sys.exit(_code(error))
    run = functools.partial(main, options=options, policy=policy, descriptor=descriptor)
    owner = options.egress_uid if egress.possible(options.egress_uid) else None
    process.run(run, egress=egress.Egress(owner))


def _code(error: Exception) -> int:
    if isinstance(error, Taken):
        return CONFLICT
    return NOT_CAPABLE if isinstance(error, (Incapable, NoTun)) else MACHINE


if __name__ == "__main__":
    start()
