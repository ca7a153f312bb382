"""forward-server: a port of a node that leads to one address.

    forward-server --node beta --allow KEY 22 127.0.0.1:22

Who opens a stream to port 22 of the node beta, and comes from the node KEY, talks with 127.0.0.1:22 as
this machine sees it. Written to be read: this is how an app takes streams (docs/writing-apps.md).

Exit codes: 0 stopped, 2 wrong arguments.
"""

import argparse
import asyncio
import contextlib
import functools
import logging
import socket
import sys
from dataclasses import dataclass

from apps.egress.admission import EVERYBODY, allowed, key_or_everybody
from apps.forward import datagrams
from apps.forward.places import Place, address, port_number
from bus import logs, process
from bus.arguments import ArgumentParser
from bus.process import Participant
from nodes import offers
from nodes.client import Incoming, Node, NodeError
from nodes.listening import why
from nodes.upkeep import keep_offer, run_at

log = logging.getLogger("forward")

DATAGRAMS, BUSY, UNREACHABLE = 1, 2, 3  # codes of our refusals, for the log of the client


@dataclass(frozen=True)
class Options:
    """The command line."""

    port: int
    to: Place
    node: str
    allow: list[str]  # keys of nodes, or EVERYBODY
    max_connections: int
    idle: float  # seconds
    connect_timeout: float  # seconds
    offer: str | None  # as what the tracker lists it
    udp: bool


class Server:
    """Gives each stream that comes in a connection to one address."""

    def __init__(self, options: Options, participant: Participant) -> None:
        self._options = options
        self._bus = participant.bus
        self._connections = 0

    async def use(self, node: Node) -> None:
        """Take streams until the node is lost."""
        options = self._options
        allow = allowed(options.allow)
        # Also with --udp: the node vouches for the offer of who listens on the port.
        listener = await node.listen(options.port, allow)
        async with asyncio.TaskGroup() as tasks:
            if options.offer:
                tasks.create_task(keep_offer(self._bus, node, options.port, options.offer))
            if options.udp:
                far = datagrams.Far(options.to, options.max_connections, options.idle)
                tasks.create_task(far.use(await node.bind(options.port, allow)))
            async for incoming in listener:  # raises NodeLost, and `keep_node` begins again
                tasks.create_task(self._serve(incoming))

    async def _serve(self, incoming: Incoming) -> None:
        """One stream: connect, and hand the socket to the node, which moves the bytes."""
        self._connections += 1
        try:
            if self._options.udp:
                await refuse(incoming, DATAGRAMS, "only datagrams are taken here")
            elif self._connections > self._options.max_connections:
                await refuse(incoming, BUSY, "too many connections")
            else:
                sock = await connect(self._options.to, self._options.connect_timeout)
                flow = await incoming.attach(sock, idle=self._options.idle)
                await flow.closed()
        except OSError as error:
            await refuse(incoming, UNREACHABLE, f"{self._options.to}: {why(error)}")
        except NodeError:
            pass  # the node was lost, and the stream with it
        finally:
            self._connections -= 1


async def connect(place: Place, timeout: float) -> socket.socket:
    """Connect to the first address of the place that answers; raises OSError (TimeoutError)."""
    loop = asyncio.get_running_loop()
    problem: OSError | None = None
    async with asyncio.timeout(timeout):
        for family, kind, _, _, at in await loop.getaddrinfo(*place, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind)
            try:
                sock.settimeout(0)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await loop.sock_connect(sock, at)
            except OSError as error:
                sock.close()
                problem = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
    raise problem or OSError(f"{place} has no address")


async def refuse(incoming: Incoming, code: int, reason: str) -> None:
    log.info("refused a stream of %s: %s", incoming.origin, reason)
    with contextlib.suppress(NodeError):
        await incoming.refuse(code, reason.encode())


async def main(participant: Participant, options: Options) -> int:
    await run_at(participant, options.node, Server(options, participant).use)
    return 0


def parse(arguments: list[str]) -> Options:
    first_line = (__doc__ or "").splitlines()[0]
    parser = ArgumentParser(prog="forward-server", description=first_line)
    parser.add_argument("port", type=port_number, metavar="PORT", help="of the node")
    parser.add_argument("to", type=address, metavar="HOST:PORT", help="where the traffic is to go")
    parser.add_argument("--udp", action="store_true", help="datagrams instead of connections")
    parser.add_argument("--node", required=True, help="name of the local node")
    parser.add_argument(
        "--allow", type=key_or_everybody, action="append", required=True, metavar=f"KEY|{EVERYBODY}",
        help="a node whose apps may use it; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--idle", type=float, default=0, help="seconds without a byte (0: for ever)"
    )
    parser.add_argument("--connect-timeout", type=float, default=10, help="seconds (10)")
    parser.add_argument("--max-connections", type=int, default=512, help="at once (512)")
    parser.add_argument(
        "--offer", type=_offered, metavar="TYPE", help="be found with `viscript find TYPE`"
    )
    return Options(**vars(parser.parse_args(arguments)))


def _offered(text: str) -> str:
    try:
        offers.state(text, {}, 0, 1)
    except offers.BadOffer:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no type: letters, digits, dots and dashes, up to 32"
        ) from None
    return text


if __name__ == "__main__":
    parsed = parse(sys.argv[1:])
    logs.configure()
    process.run(functools.partial(main, options=parsed))
