"""A mesh node: `python -P -m nodes.node --name alpha [--link PEER …] [--listen ENDPOINT]`.

Started by viscript, which puts it on the bus; apps find it at $VISCRIPT_RUN/node-NAME.sock.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import functools
import gc
import logging
import os
import random
import re
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bus import egress, logs, process
from bus.arguments import ArgumentParser
from bus.identity import is_key, to_bytes
from bus.sockets import new_context
from nodes import offers
from nodes.answering import Answers
from nodes.appport import AppPort, listen
from nodes.control import Control
from nodes.engine import Engine
from nodes.errors import CannotListen
from nodes.links.peers import Peers
from nodes.links.zeromq import DATA_CONNECTIONS, Transport
from nodes.obeying import Obedience
from nodes.orders import Guard
from nodes.pinning import PinError, pin, pinned
from nodes.sealing import preferred
from nodes.shared import Stopped
from nodes.speed import Meter

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

EXIT_TAKEN: Final = 9
NOWHERE: Final = "none"  # as --listen: this node cannot be dialled
MAX_AUTOMATIC: Final = 64
EXIT_PIN: Final = 8  # the file with the manager's key cannot be used
_TICK: Final = 1.0
_YOUNG: Final = (20_000, 20, 50)  # objects until they are searched for cycles, of which are few
_MANY: Final = 32  # streams; fewer leave nothing behind that is worth the trouble
_FAREWELL: Final = 0.05  # s for the last resets to leave
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a node name: up to 32 letters, digits, '-' and '_'"
        )
    return text


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a number from 0 to 65535")
    return int(text)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > MAX_AUTOMATIC:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {MAX_AUTOMATIC}")
    return int(text)


def _key(text: str) -> str:
    if not is_key(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a key: 40 characters in Z85")
    return text


def _egress(text: str) -> egress.Egress:
    try:
        return egress.chosen(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _arguments(given: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(prog="node", description="A node of the mesh.")
    parser.add_argument("--name", type=_name, required=True, help="what apps and people call it")
    parser.add_argument(
        "--link",
        action="append",
        default=[],
        metavar="NODE",
        help="name or key of a node to link to; may be given several times",
    )
    parser.add_argument(
        "--listen",
        default="tcp://127.0.0.1:0",
        metavar="ENDPOINT",
        help="where neighbours dial in (default: %(default)s, any free port); "
        f"{NOWHERE!r} where they cannot: behind NAT, this node dials and is reached through others",
    )
    _data_arguments(parser)
    parser.add_argument(
        "--auto-peers",
        type=_number,
        default=0,
        metavar="N",
        help="also link to at most N nodes that the manager suggests (default: %(default)s)",
    )
    parser.add_argument(
        "--allow",
        action="append",
        type=_key,
        default=[],
        metavar="KEY",
        help="only nodes with these keys may become neighbours (default: those the manager names)",
    )
    parser.add_argument(
        "--manager",
        type=_key,
        metavar="KEY",
        help="the node manager to obey (default: the first one this node registered at)",
    )
    parser.add_argument(
        "--egress-uid",
        dest="egress",
        type=_egress,
        default="auto",
        metavar="UID",
        help="whose its connections are, so that a VPN can tell them apart; none: this process' own"
        f" (default: {egress.UID}, if it may: that needs CAP_SETUID)",
    )
    return parser.parse_args(given)


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        choices=("tcp", "curve"),
        default="tcp",
        help="what carries data between neighbours: TCP connections of its own, whose payloads are"
        " sealed from end to end only, or the control connection (default: %(default)s)",
    )
    parser.add_argument(
        "--data-port",
        type=_port,
        default=0,
        metavar="PORT",
        help="where neighbours bring their data connections (default: any free port)",
    )


def socket_path(run_dir: Path, name: str) -> Path:
    return run_dir / f"node-{name}.sock"


def start() -> None:
    """Read the arguments and take the socket before joining the bus: who sees the node can use it."""
    logs.configure()
    arguments = _arguments(sys.argv[1:])
    path = socket_path(Path(os.environ.get("VISCRIPT_RUN", ".")), arguments.name)
    try:
        sock = listen(path)
    except CannotListen as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the program's own output
        sys.exit(EXIT_TAKEN)
    run = functools.partial(main, arguments=arguments, sock=sock, path=path)
    process.run(run, uvloop=True, egress=arguments.egress)


async def main(
    participant: process.Participant,
    *,
    arguments: argparse.Namespace,
    sock: socket.socket,
    path: Path,
) -> int:
    process.raise_descriptor_limit()  # one for a stream
    code = 0
    try:
        async with asyncio.TaskGroup() as tasks:
            with _running(participant, arguments, sock, path, tasks) as (
                engine,
                transport,
                control,
            ):
                await control.start(arguments.link)
                tasks.create_task(_tick(engine, transport))
                gc.freeze()  # what is there now stays; searching it took 8 % under load
                gc.set_threshold(*_YOUNG)
                await participant.stopping.wait()
                engine.stop()
                await asyncio.sleep(_FAREWELL)
            raise Stopped
    except* Stopped:
        log.info("stopped")
    except* CannotListen as group:
        log.error("%s", group.exceptions[0])  # noqa: TRY400 - the user's business, no traceback
        code = EXIT_TAKEN
    except* PinError as group:
        log.error("%s", group.exceptions[0])  # noqa: TRY400 - as above
        code = EXIT_PIN
    return code


@contextlib.contextmanager
def _running(
    participant: process.Participant,
    arguments: argparse.Namespace,
    sock: socket.socket,
    path: Path,
    tasks: asyncio.TaskGroup,
) -> Iterator[tuple[Engine, Transport, Control]]:
    """The parts of a node, connected; closed on the way out."""
    bus, keypair, name = participant.bus, participant.keypair, arguments.name
    pin_file = participant.environment.state_dir / f"node-{name}.manager"
    if arguments.manager is not None:
        pin(pin_file, arguments.manager)
    guard = Guard(keypair.public, os.urandom(16), pinned(pin_file))
    peers = Peers(
        keypair.public,
        random.random,
        arguments.auto_peers,
        frozenset(arguments.allow) if arguments.allow else None,
    )
    engine = Engine(keypair, ciphers=preferred(_cpu_flags()))
    engine.observer.wake = _Alarm(engine).set
    context = new_context(egress=arguments.egress)
    with contextlib.ExitStack() as stack:
        stack.callback(context.destroy, linger=0)
        connections = DATA_CONNECTIONS if arguments.data == "tcp" else 0
        transport = Transport(
            context, keypair, name, engine, peers.admits, connections=connections,
            egress=arguments.egress,
        )  # fmt: skip
        stack.callback(transport.close)
        if arguments.listen != NOWHERE:
            transport.listen(arguments.listen, arguments.data_port)
        obedience = Obedience(engine, guard, peers.expect, pin_file)
        control = Control(bus, engine, transport, obedience, peers, tasks)
        vouch = functools.partial(offers.vouch, to_bytes(keypair.secret))
        port = AppPort(engine, sock, path, name, control, tasks, vouch)
        stack.callback(port.close)
        meter = Meter(path, tasks)
        Answers(bus, engine, transport, control, obedience, meter)
        tasks.create_task(meter.run())
        where = transport.endpoint or "nothing"
        log.info("node %s listens for neighbours on %s, for apps on %s", name, where, path)
        yield engine, transport, control


class _Alarm:
    """Calls the engine when it wants to be called."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, when - time.monotonic()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._engine.handle_timer()


def _cpu_flags() -> frozenset[str]:
    """What this CPU can do; nothing where it does not say."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            for line in file:
                if line.startswith(("flags", "Features")):
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


async def _tick(engine: Engine, transport: Transport) -> None:
    peak = 0
    while True:
        await asyncio.sleep(_TICK)
        transport.tick()
        engine.tick()
        peak = max(peak, engine.streams)
        if peak >= _MANY and engine.streams * 4 <= peak:
            _return_memory()
            peak = engine.streams


def _return_memory() -> None:
    """Give freed frames back to the system: the C library keeps them, 250 MiB after a busy hour."""
    with contextlib.suppress(AttributeError, OSError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    start()
