"""vpn-server: the exit of a VPN. Clients of the mesh leave from this machine.

    vpn-server --node beta --allow-key KEY

Needs Linux, nft, CAP_NET_ADMIN and CAP_SYS_ADMIN: it has a network namespace of its own. What it changes
on the machine it puts back when it ends; `vpn-server --put-back` does so after one that was killed.

Exit codes: 0 stopped, 2 wrong arguments, 8 the machine does not let it, 9 the same exit runs already.
"""

import asyncio
import contextlib
import functools
import logging
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from apps.vpn import outside
from apps.vpn.addresses import Plan
from apps.vpn.exit import Exit, open_exit
from apps.vpn.leases import BadBook, Book
from apps.vpn.namespace import CannotSetUp, lacking
from apps.vpn.options import Options, parse
from apps.vpn.questions import Terms
from apps.vpn.resolver import Resolver
from apps.vpn.rulesets import TUN
from apps.vpn.stats import SERVED, STATS, Stats
from apps.vpn.tenants import Tenants
from bus import Request, keystore, logs, process
from bus.process import Participant
from nodes.client import Node, NodeError, Tunnel, TunnelStats
from nodes.upkeep import keep_node, keep_offer, run_until

log = logging.getLogger("vpn")

ENVIRONMENT, CONFLICT = 8, 9  # exit codes
OFFER: Final = "vpn"  # as what the tracker lists it
LOOK: Final = 5.0  # seconds between two looks at figures and rules
AROUND: Final = 12  # looks, until the firewall of the machine is looked at
BOOK: Final = "leases.json"


class Server:
    """One exit at one node, over all of the node's starts."""

    def __init__(self, options: Options, participant: Participant) -> None:
        self._options = options
        self._bus = participant.bus
        self._book_file = participant.state_dir / BOOK
        self._tag = outside.tag_of(
            str(participant.environment.home), options.node, str(options.port)
        )
        self._resolver = Resolver(Terms(options.allow, options.deny), options.resolver)
        self._labels: dict[str, str] = {}  # of the offer, as it is now
        self._since = time.time()
        self._book: Book | None = None
        self._exit: Exit | None = None
        self._tenants: Tenants | None = None
        self._tunnel: Tunnel | None = None
        self._key = ""

    async def use(self, node: Node) -> None:
        """Let clients out until the node is lost; raises CannotSetUp, outside.Taken."""
        options = self._options
        listener = await node.listen(options.port, options.keys)
        way_out, book = await self._opened(node.key)
        tunnel = await node.tunnel(way_out.tun, TUN, mtu=options.mtu, offload=options.offload)
        tenants = Tenants(options, book, way_out, tunnel)
        self._key, self._tunnel, self._tenants = node.key, tunnel, tenants
        self._say_load()
        log.info("clients leave here: %s, %s", way_out.plan.v4, way_out.plan.v6)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(keep_offer(self._bus, node, options.port, OFFER, self._labels))
                tasks.create_task(self._resolver.serve(await way_out.doors()))
                tasks.create_task(self._look(way_out, tenants))
                tasks.create_task(_tell(tunnel))
                async for incoming in listener:  # raises NodeLost
                    tasks.create_task(tenants.serve(incoming))
        finally:
            self._tunnel = self._tenants = None

    async def farewell(self) -> None:
        """Before it is stopped."""
        if self._tenants is not None:
            await self._tenants.close()

    async def close(self) -> None:
        """Put everything back."""
        self._save()
        if self._exit is not None:
            await self._exit.close()
            self._exit = None

    async def stats(self, _request: Request) -> bytes:
        """`vpn.stats`: who is here, and what they do."""
        told: TunnelStats | None = None
        if self._tunnel is not None:
            with contextlib.suppress(NodeError):
                told = await self._tunnel.stats()
        return msgspec.msgpack.encode(self._stats(told))

    def _stats(self, told: TunnelStats | None) -> Stats:
        tenants = self._tenants
        return Stats(
            node=self._options.node,
            key=self._key,
            since=self._since,
            clients=tenants.told(told) if tenants is not None else [],
            most=self._options.clients,
            limits=msgspec.to_builtins(self._options.limits),
            connections=tenants.connections if tenants is not None else 0,
            foreign=tenants.foreign if tenants is not None else 0,
            resolver=dict(self._resolver.figures),
            offload=told.offload if told else [],
            warnings=self._exit.warnings if self._exit else [],
        )

    async def _opened(self, key: str) -> tuple[Exit, Book]:
        """The way out, made at the first time; raises CannotSetUp, outside.Taken."""
        plan = Plan.of(key, self._options.network)
        if self._exit is not None and self._exit.plan != plan:  # the node has another key now
            await self.close()
        if self._exit is None or self._book is None:
            self._book = _load(self._book_file, plan)
            self._exit = await open_exit(self._options, plan, self._tag)
            await self._exit.look_around()
        return self._exit, self._book

    async def _look(self, way_out: Exit, tenants: Tenants) -> None:
        """Now and then: what was moved, and is all as it should be."""
        looks = 0
        while True:
            await asyncio.sleep(LOOK)
            try:
                await way_out.keep()
                looks += 1
                if looks % AROUND == 0:
                    await way_out.look_around()
                if tenants:
                    await tenants.measure()
                    tenants.connections = await way_out.connections()
                    self._save()
            except CannotSetUp as error:
                log.warning("%s", error)
            self._say_load()

    def _say_load(self) -> None:
        tenants = self._tenants
        self._labels["load"] = str(round(100 * tenants.load)) if tenants else "0"
        self._labels["access"] = "all" if self._options.keys is None else "keys"

    def _save(self) -> None:
        if self._book is not None:
            try:
                keystore.write_private(self._book_file, self._book.dump())
            except OSError as error:
                log.warning("%s: %s", self._book_file, error.strerror)


async def _tell(tunnel: Tunnel) -> None:
    """Log what happens to the tunnel."""
    with contextlib.suppress(NodeError):
        async for event in tunnel.events():
            log.info("tunnel: %s %s %s", event.what, event.peer, event.detail)


def _load(file: Path, plan: Plan) -> Book:
    book = Book(plan)
    try:
        book.load(file.read_bytes())
    except FileNotFoundError:
        pass
    except (BadBook, OSError) as error:
        log.warning("%s cannot be used, clients may get other addresses: %s", file, error)
    return book


async def main(participant: Participant, options: Options) -> int:
    path = participant.run_dir / f"node-{options.node}.sock"
    server = Server(options, participant)
    participant.bus.answer(STATS, server.stats)
    about = f"at node {options.node}"
    await participant.bus.serve(SERVED, server.stats, name="vpn-exit", description=about)
    done = asyncio.Event()

    async def say_farewell() -> None:
        await participant.stopping.wait()
        await server.farewell()
        done.set()

    farewell = asyncio.create_task(say_farewell())
    try:
        await run_until(done, keep_node(path, participant.app, server.use))
    except CannotSetUp as error:
        log.error("%s", error)  # noqa: TRY400 - not our fault: its text is all there is to say
        return ENVIRONMENT
    except outside.Taken as error:
        log.error("%s", error)  # noqa: TRY400
        return CONFLICT
    finally:
        farewell.cancel()
        await server.close()
    return 0


def start() -> None:
    options = parse(sys.argv[1:], __doc__ or "")
    logs.configure()
    if missing := lacking():
        _fail(f"vpn-server lacks {' and '.join(missing)}: run viscript as root")
    if options is None:
        try:
            for tag in outside.put_back():
                print(f"put back what exit {tag} had changed")  # noqa: T201 - the program's own output
        except CannotSetUp as error:
            _fail(str(error))
        return
    process.run(functools.partial(main, options=options))


def _fail(text: str) -> None:
    print(f"error: {text}", file=sys.stderr)  # noqa: T201
    sys.exit(ENVIRONMENT)


if __name__ == "__main__":
    start()
