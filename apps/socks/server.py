"""socks-server: the exit. Dials what the other half asks for, from this machine.

Exit codes: 0 stopped, 2 wrong arguments.
"""

import argparse
import asyncio
import functools
import sys
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeVar

from apps.egress.ledger import LimitError, Limits
from apps.egress.rules import Rule, RuleError
from apps.egress.upstream import Server
from apps.socks import figures
from apps.socks.exit import Exit, Options
from apps.socks.messages import PORT
from bus import logs, process
from bus.arguments import ArgumentParser
from bus.identity import is_key
from nodes.upkeep import keep_node, run_until

if TYPE_CHECKING:
    from bus.process import Participant

_T = TypeVar("_T")


async def main(participant: "Participant", options: Options) -> int:
    process.raise_descriptor_limit()  # three for an association
    path = participant.run_dir / f"node-{options.node}.sock"
    exit_ = Exit(options, participant.bus, participant.state_dir)
    participant.bus.answer(figures.STATS, exit_.stats)
    await participant.bus.serve(
        figures.SERVED, exit_.stats, name="socks-exit", description=f"at node {options.node}"
    )

    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_node(path, participant.app, exit_.serve))
            tasks.create_task(exit_.keep_volumes())

    await run_until(participant.stopping, work())
    return 0


def parse(arguments: list[str]) -> Options:
    parser = ArgumentParser(prog="socks-server", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--node", required=True, help="name of the local node")
    parser.add_argument("--port", type=int, default=PORT, help=f"mesh port ({PORT})")
    _add_policy(parser)
    _add_limits(parser)
    parser.add_argument(
        "--resolver", type=_kind(_server), action="append", default=[], metavar="IP[:PORT]",
        help="ask this name server instead of the system's; may be repeated",
    )  # fmt: skip
    parser.add_argument("--idle", type=float, default=3600, help="seconds without a byte (3600)")
    parser.add_argument(
        "--udp-idle", type=float, default=300, help="seconds without a datagram (300)"
    )
    parser.add_argument("--connect-timeout", type=float, default=10, help="seconds (10)")
    parser.add_argument("--max-connections", type=int, default=1024, help="of all keys (1024)")
    parser.add_argument(
        "--max-associations", type=int, default=256, help="of datagrams, of all keys (256); 0: none"
    )
    found = vars(parser.parse_args(arguments))
    shares = Limits(
        connections=max(1, found["max_connections"] * 3 // 4),
        associations=max(1, found["max_associations"] // 4),
    )
    limits, limits_of = _limits(parser, found.pop("limit"), shares)
    only = found["only"]
    if not only and any(rule.names and not rule.everywhere for rule in found["allow"]):
        named = next(rule.text for rule in found["allow"] if rule.names)
        parser.error(
            f"--allow {named}: every name may be asked for anyway, and a name opens no private address; "
            "add --only, or allow an address"
        )
    for name in ("allow", "deny", "allow_key", "resolver"):
        found[name] = tuple(found[name])
    return Options(**found, limits=limits, limits_of=limits_of)


def _add_policy(parser: argparse.ArgumentParser) -> None:
    place = "CIDR|NAME[:PORT[-PORT]]"
    parser.add_argument(
        "--allow", type=_kind(Rule.parse), action="append", default=[], metavar=place,
        help="let users reach this non-public place, or with --only this one; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--deny", type=_kind(Rule.parse), action="append", default=[], metavar=place,
        help="let nobody reach it, whatever is allowed; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--only", action="store_true", help="let users reach what --allow names, and nothing else"
    )
    parser.add_argument(
        "--allow-key", type=_kind(_key), action="append", default=[], metavar="KEY",
        help="only this node may use the exit; may be repeated",
    )  # fmt: skip


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", action="append", default=[], metavar="[KEY,]NAME=VALUE[,...]",
        help="what each node may use, or the one with this key: connections=64,associations=16,"
        "rate=10M,volume=50G/day; may be repeated",
    )  # fmt: skip


def _limits(
    parser: argparse.ArgumentParser, texts: list[str], default: Limits
) -> tuple[Limits, dict[str, Limits]]:
    """Those of everybody come first, whatever the order: those of a key change what they name."""
    of_keys = dict[str, Limits]()
    try:
        for text in texts:
            key, found = Limits.parse(text, default)
            default = found if key is None else default
        for text in texts:
            key, _ = Limits.parse(text)
            if key is not None:
                _, of_keys[key] = Limits.parse(text, of_keys.get(key, default))
    except LimitError as error:
        parser.error(f"--{error}")
    return default, of_keys


def _kind(read: Callable[[str], _T]) -> Callable[[str], _T]:
    """The reader, with its complaint shown as it is."""

    def checked(text: str) -> _T:
        try:
            return read(text)
        except RuleError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def _key(text: str) -> str:
    if not is_key(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not the key of a node; see: viscript node ls"
        )
    return text


def _server(text: str) -> Server:
    host, port = text, "53"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        return str(ip_address(host)), range(65536)[int(port)]
    except (ValueError, IndexError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not IP or IP:PORT, such as 192.0.2.53 or [2001:db8::53]:53"
        ) from None


if __name__ == "__main__":
    options = parse(sys.argv[1:])
    logs.configure()
    process.run(functools.partial(main, options=options), uvloop=True)
