"""socks-client: a port for SOCKS5 and HTTP CONNECT on this machine; the exit dials what it is asked for.

Exit codes: 0 stopped, 2 wrong arguments, 4 user file unreadable or open to others, 9 port taken.
"""

import argparse
import asyncio
import errno
import functools
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from apps.socks.gateway import Gateway, Options
from apps.socks.messages import PORT
from apps.socks.upkeep import NOT_PERMITTED, log
from apps.socks.users import UserFileError, read_users
from bus import logs, process
from bus.arguments import ArgumentParser
from nodes.listening import CONFLICT, ip_port, shown
from nodes.upkeep import keep_node, run_until

if TYPE_CHECKING:
    from bus.process import Participant

BACKLOG = 512


class ListenError(Exception):
    """The SOCKS port cannot be had; the text says why and the way out."""


async def main(participant: "Participant", options: Options, listener: socket.socket) -> int:
    path = participant.run_dir / f"node-{options.node}.sock"
    gateway = Gateway(options, participant.bus)

    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_node(path, participant.app, gateway.use))
            tasks.create_task(gateway.accept(listener))

    await run_until(participant.stopping, work())
    return 0


def listen(options: Options) -> socket.socket:
    """Take the SOCKS port; raise ListenError."""
    host, port = options.listen
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # and those that come by it
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.settimeout(0)
    except OSError as error:
        listener.close()
        way_out = "; stop what listens there, or choose another --listen"
        taken = error.errno == errno.EADDRINUSE
        raise ListenError(
            f"--listen {shown(options.listen)}: {error.strerror}{way_out if taken else ''}"
        ) from error
    log.info("SOCKS5 and HTTP CONNECT on %s:%d", *listener.getsockname()[:2])
    return listener


def parse(arguments: list[str]) -> Options:
    """Read the command line; raise UserFileError."""
    parser = ArgumentParser(prog="socks-client", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--node", required=True, help="name of the local node")
    parser.add_argument(
        "--exit",
        required=True,
        type=_exits,
        dest="exits",
        metavar="NODE[,NODE...]|fastest",
        help="names or keys of nodes with a socks-server, the next when one cannot be reached",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"mesh port of the exit ({PORT})")
    parser.add_argument(
        "--listen",
        type=functools.partial(ip_port, example="127.0.0.1:1080"),
        default=("127.0.0.1", 1080),
        metavar="IP:PORT",
    )
    parser.add_argument("--user-file", type=Path, help="name:password lines, readable by you only")
    parser.add_argument("--idle", type=float, default=3600, help="seconds without a byte (3600)")
    parser.add_argument("--max-connections", type=int, default=512)
    found = parser.parse_args(arguments)
    users = read_users(found.user_file) if found.user_file else None
    if users is None and not ip_address(found.listen[0]).is_loopback:
        parser.error(
            f"--listen {found.listen[0]}: everybody who reaches it could use it; "
            "add --user-file, or listen on 127.0.0.1"
        )
    values = {name: value for name, value in vars(found).items() if name != "user_file"}
    return Options(**values, users=users)


def _exits(text: str) -> tuple[str, ...]:
    """None for the fastest, whose names the tracker knows."""
    names = tuple(dict.fromkeys(text.split(",")))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not NODE, NODE,NODE or fastest")
    return () if names == ("fastest",) else names


def start() -> None:
    """Take the port before joining the bus: who sees the app there can use it."""
    logs.configure()
    process.raise_descriptor_limit()  # one for a client
    try:
        options = parse(sys.argv[1:])
        listener = listen(options)
    except (UserFileError, ListenError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the program's own output
        sys.exit(CONFLICT if isinstance(error, ListenError) else NOT_PERMITTED)
    process.run(functools.partial(main, options=options, listener=listener), uvloop=True)


if __name__ == "__main__":
    start()
