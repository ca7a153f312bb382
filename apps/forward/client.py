"""forward-client: a port of this machine that leads to a port of another node.

    forward-client --node alpha 127.0.0.1:2222 beta:22
    forward-client --node alpha --udp 127.0.0.1:5300 beta:53

Who connects to 127.0.0.1:2222 talks with the app that listens on port 22 of the node beta, such as a
forward-server. Written to be read: this is how an app opens streams (docs/writing-apps.md).

Exit codes: 0 stopped, 2 wrong arguments, 9 address taken or not of this machine.
"""

import asyncio
import functools
import logging
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from apps.forward import datagrams
from apps.forward.places import Place, address, node_port
from bus import logs, process
from bus.arguments import ArgumentParser
from bus.process import Participant
from nodes import listening
from nodes.client import Node, NodeError
from nodes.upkeep import run_at

log = logging.getLogger("forward")

BACKLOG = 512  # clients that wait while the node is away, or while all connections are in use
PAUSE = 0.2  # seconds, when there are no descriptors left


@dataclass(frozen=True)
class Options:
    """The command line."""

    listen: Place
    to: Place
    node: str
    max_connections: int
    idle: float  # seconds
    udp: bool


class Client:
    """Gives each client of a listening socket a stream."""

    def __init__(self, options: Options, listener: socket.socket) -> None:
        self._options = options
        self._listener = listener
        self._free = asyncio.Semaphore(options.max_connections)

    async def use(self, node: Node) -> None:
        """Take clients until the node is lost. Who comes while there is none waits in the kernel."""
        async with asyncio.TaskGroup() as tasks:
            accepting = tasks.create_task(self._accept(node, tasks))
            await node.lost.wait()
            accepting.cancel()

    async def _accept(self, node: Node, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._free.acquire()
            try:
                client, _ = await loop.sock_accept(self._listener)
            except OSError:  # no descriptors left, or a client that is gone again
                self._free.release()
                await asyncio.sleep(PAUSE)
            except BaseException:
                self._free.release()
                raise
            else:
                tasks.create_task(self._serve(node, client))

    async def _serve(self, node: Node, client: socket.socket) -> None:
        """One client: open a stream and hand the socket to the node, which moves the bytes."""
        try:
            opened = await node.open(*self._options.to)
            flow = await opened.attach(client, idle=self._options.idle)
            await flow.closed()
        except NodeError as error:
            log.info("no stream to %s: %s", self._options.to, error)
            reset(client)
        finally:
            client.close()
            self._free.release()


def reset(sock: socket.socket) -> None:
    """Close so that the other end sees an error, and not an orderly end."""
    if sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


async def main(participant: Participant, options: Options, listener: socket.socket) -> int:
    use: Callable[[Node], Awaitable[None]]
    if options.udp:
        use = datagrams.Near(listener, options.to, options.max_connections, options.idle).use
    else:
        use = Client(options, listener).use
    await run_at(participant, options.node, use)
    return 0


def parse(arguments: list[str]) -> Options:
    first_line = (__doc__ or "").splitlines()[0]
    parser = ArgumentParser(prog="forward-client", description=first_line)
    parser.add_argument("listen", type=address, metavar="IP:PORT", help="of this machine")
    parser.add_argument("to", type=node_port, metavar="NODE:PORT", help="name or key of the node")
    parser.add_argument("--udp", action="store_true", help="datagrams instead of connections")
    parser.add_argument("--node", required=True, help="name of the local node")
    parser.add_argument(
        "--idle", type=float, default=0, help="seconds without a byte (0: for ever)"
    )
    parser.add_argument(
        "--max-connections", type=int, default=512, help="further clients wait (512)"
    )
    return Options(**vars(parser.parse_args(arguments)))


def start() -> None:
    """Take the port before joining the bus: who sees the app there can use it."""
    logs.configure()
    options = parse(sys.argv[1:])
    if options.udp:
        listener = listening.or_exit(options.listen, listening.udp)
    else:
        listener = listening.or_exit(options.listen, lambda at: listening.tcp(at, BACKLOG))
    process.run(functools.partial(main, options=options, listener=listener))


if __name__ == "__main__":
    start()
