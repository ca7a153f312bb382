"""socks-server: the exit. Dials what the other half asks for, from this machine.

Exit codes: 0 stopped, 2 wrong arguments.
"""

import argparse
import asyncio
import contextlib
import functools
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apps.egress.rules import Policy, Rule, RuleError
from apps.socks.dial import DialError, Gate, dial
from apps.socks.messages import OFFER, PORT, Destination, Refusal, encode, read_greeting
from apps.socks.protocol import Reply
from apps.socks.resolver import Resolver
from apps.socks.upkeep import Notes
from bus import logs, process
from nodes.client import Incoming, Node, NodeError
from nodes.upkeep import keep_node, keep_offer, run_until

if TYPE_CHECKING:
    from bus import Bus
    from bus.process import Participant

# Names being resolved and targets being dialled at once: what a scan through an exit can occupy.
MAX_DIALS = 128


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line."""

    node: str
    port: int
    allow: tuple[Rule, ...]
    idle: float  # seconds
    connect_timeout: float  # seconds, resolving included
    max_connections: int


class Exit:
    """Answers streams from the mesh with connections to targets."""

    def __init__(self, options: Options, bus: "Bus") -> None:
        self._options = options
        self._bus = bus
        self._gate = Gate(Policy(options.allow), Resolver())
        self._connections = 0
        self._dials = 0
        self._note = Notes()

    async def serve(self, node: Node) -> None:
        """Listen on the node until it is lost."""
        listener = await node.listen(self._options.port)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_offer(self._bus, node, self._options.port, OFFER))
            try:
                async for incoming in listener:
                    tasks.create_task(self._answer(incoming))
            except NodeError:
                return

    async def _answer(self, incoming: Incoming) -> None:
        if self._dials >= MAX_DIALS or self._connections >= self._options.max_connections:
            await self._refuse(incoming, Refusal(Reply.GENERAL, "the exit is busy"))
            return
        self._connections += 1
        try:
            await self._connect(incoming)
        except DialError as error:
            await self._refuse(incoming, error.refusal)
        except NodeError:
            pass  # the node went away, and its streams with it: `serve` ends too
        except OSError as error:  # out of descriptors
            await self._refuse(incoming, Refusal(Reply.GENERAL, error.strerror or "no descriptor"))
        finally:
            self._connections -= 1

    async def _connect(self, incoming: Incoming) -> None:
        destination = read_greeting(incoming.greeting)
        if destination is None:
            raise DialError(Reply.GENERAL, "a greeting that is none")
        if not isinstance(destination, Destination):
            raise DialError(Reply.COMMAND_UNSUPPORTED, "datagrams are not carried yet")
        self._dials += 1
        try:
            target = await dial(destination, self._gate, self._options.connect_timeout)
        finally:
            self._dials -= 1
        with target:
            flow = await incoming.attach(target, idle=self._options.idle)
        await flow.closed()

    async def _refuse(self, incoming: Incoming, refusal: Refusal) -> None:
        self._note(f"{refusal.code.name.lower()} for {incoming.origin}: {refusal.reason}")
        with contextlib.suppress(NodeError):  # gone: nobody is left to tell
            await incoming.refuse(refusal.code, encode(refusal))


async def main(participant: "Participant", options: Options) -> int:
    path = participant.run_dir / f"node-{options.node}.sock"
    exit_ = Exit(options, participant.bus)
    await run_until(participant.stopping, keep_node(path, participant.app, exit_.serve))
    return 0


def parse(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="socks-server", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--node", required=True, help="name of the local node")
    parser.add_argument("--port", type=int, default=PORT, help=f"mesh port ({PORT})")
    parser.add_argument(
        "--allow",
        type=_rule,
        action="append",
        default=[],
        metavar="CIDR[:PORT[-PORT]]",
        help="let users reach this non-public place; may be repeated",
    )
    parser.add_argument("--idle", type=float, default=3600, help="seconds without a byte (3600)")
    parser.add_argument("--connect-timeout", type=float, default=10, help="seconds (10)")
    parser.add_argument("--max-connections", type=int, default=1024)
    found = parser.parse_args(arguments)
    return Options(**{**vars(found), "allow": tuple(found.allow)})


def _rule(text: str) -> Rule:
    try:
        return Rule.parse(text)
    except RuleError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    options = parse(sys.argv[1:])
    logs.configure()
    process.run(functools.partial(main, options=options))
