"""The far half of the SOCKS pair: answers streams from the mesh with connections to targets."""

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from apps.egress.ledger import Account, Ledger, Limits, NotAdmitted
from apps.egress.rules import Policy, Rule
from apps.egress.upstream import Server
from apps.socks import figures, metered
from apps.socks.dial import DialError, Gate, dial
from apps.socks.messages import (
    LABEL_ACCESS,
    LABEL_LOAD,
    LABEL_UDP,
    OFFER,
    Association,
    Destination,
    Probe,
    Refusal,
    encode,
    read_greeting,
)
from apps.socks.protocol import Reply
from apps.socks.relay import Relay
from apps.socks.resolver import Resolver
from apps.socks.upkeep import Notes, log
from apps.socks.volumes import EVERY, Volumes
from nodes.client import Incoming, Node, NodeError
from nodes.upkeep import keep_offer

if TYPE_CHECKING:
    from bus import Bus, Request

# Names being resolved and targets being dialled at once: what a scan through an exit can occupy.
MAX_DIALS: Final = 256
MAX_DIALS_OF_KEY: Final = 128


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line."""

    node: str
    port: int
    allow: tuple[Rule, ...]
    deny: tuple[Rule, ...]
    only: bool
    allow_key: tuple[str, ...]  # none: all
    limits: Limits
    limits_of: dict[str, Limits]  # by key
    resolver: tuple[Server, ...]  # none: the system's
    idle: float  # seconds
    udp_idle: float  # seconds
    connect_timeout: float  # seconds, resolving included
    max_connections: int
    max_associations: int


class Exit:
    """One exit on one node."""

    def __init__(self, options: Options, bus: "Bus", folder: Path) -> None:
        self._options = options
        self._bus = bus
        self._gate = Gate(
            Policy(options.allow, options.deny, only=options.only), Resolver(options.resolver)
        )
        self._ledger = Ledger(
            options.limits,
            options.limits_of,
            connections=options.max_connections,
            associations=options.max_associations,
        )
        self._volumes = Volumes(folder, self._ledger)
        self._volumes.load(time.monotonic(), _shift())
        self._dials: Counter[str] = Counter()  # by key
        self._note = Notes()
        self._since = time.time()
        self._opened = 0
        self._refused: Counter[str] = Counter()  # by reason
        self._node: Node | None = None
        self._relay: Relay | None = None

    async def keep_volumes(self) -> None:
        """Write down what is used of volumes, for ever."""
        told = None
        while True:
            problem = self._volumes.save(_shift())
            if problem is not None and problem != told:
                log.warning("%s", problem)
            told = problem
            await asyncio.sleep(EVERY)

    async def serve(self, node: Node) -> None:
        """Listen on the node until it is lost."""
        options = self._options
        allow = options.allow_key or None
        listener = await node.listen(options.port, allow)
        datagrams = await node.bind(options.port, allow)
        self._relay = Relay(self._gate, self._ledger, datagrams, options.udp_idle)
        self._node = node
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(keep_offer(self._bus, node, options.port, OFFER, self._labels))
                tasks.create_task(self._relay.pass_on())
                async for incoming in listener:  # raises NodeLost
                    tasks.create_task(self._answer(incoming))
        finally:
            self._node = None
            await self._gate.resolver.aclose()

    def stats(self, _request: "Request") -> bytes:
        """`socks.stats`: what happens here."""
        return figures.encode(self._stats())

    def _labels(self) -> dict[str, str]:
        """What the tracker tells of this exit."""
        return {
            LABEL_LOAD: str(round(100 * self._load())),
            LABEL_ACCESS: "keys" if self._options.allow_key else "all",
            LABEL_UDP: "yes" if self._options.max_associations else "no",
        }

    def _load(self) -> float:
        return max(self._ledger.load, self._dials.total() / MAX_DIALS)

    async def _answer(self, incoming: Incoming) -> None:
        greeting = read_greeting(incoming.greeting)
        try:
            match greeting:
                case Destination():
                    await self._connect(incoming, greeting)
                case Association():
                    await self._associate(incoming, greeting)
                case Probe():
                    await incoming.refuse(Reply.SUCCEEDED)
                case None:
                    raise DialError(Reply.GENERAL, "a greeting that is none")
        except DialError as error:
            await self._refuse(incoming, error.refusal.code.name.lower(), error.refusal)
        except NotAdmitted as error:
            code = Reply.GENERAL if error.reason == "busy" else Reply.NOT_ALLOWED
            await self._refuse(incoming, error.reason, Refusal(code, str(error)))
        except NodeError:
            pass  # the node went away, and its streams with it: `serve` ends too
        except OSError as error:  # out of descriptors
            refusal = Refusal(Reply.GENERAL, error.strerror or "no descriptor")
            await self._refuse(incoming, "no_descriptor", refusal)

    async def _connect(self, incoming: Incoming, destination: Destination) -> None:
        account = self._ledger.connect(incoming.origin, time.monotonic())
        try:
            await self._carry(incoming, destination, account)
        except DialError as error:
            self._ledger.note(account, error.refusal.code.name.lower())
            raise
        finally:
            self._ledger.disconnect(account)

    async def _carry(self, incoming: Incoming, destination: Destination, account: Account) -> None:
        """Dial, and hand the connection to the node, which moves the bytes."""
        key = incoming.origin
        if self._dials.total() >= MAX_DIALS or self._dials[key] >= MAX_DIALS_OF_KEY:
            self._ledger.note(account, "busy")
            raise NotAdmitted("busy", "the exit is busy: it dials for others")
        self._dials[key] += 1
        try:
            target = await dial(destination, self._gate, self._options.connect_timeout)
        finally:
            self._dials[key] -= 1
            if not self._dials[key]:
                del self._dials[key]
        account.opened += 1
        self._opened += 1
        with target:
            if account.limited:
                await metered.carry(incoming, target, account, self._options.idle)
                return
            flow = await incoming.attach(target, idle=self._options.idle)
        closed = await flow.closed()
        account.spend(closed.bytes_out, closed.bytes_in, time.monotonic())

    async def _associate(self, incoming: Incoming, asked: Association) -> None:
        if not self._options.max_associations or self._relay is None:
            raise DialError(Reply.COMMAND_UNSUPPORTED, "this exit carries no datagrams")
        account = self._ledger.associate(incoming.origin, time.monotonic())
        try:
            await self._relay.serve(incoming, asked, account)
        finally:
            self._ledger.dissociate(account)

    async def _refuse(self, incoming: Incoming, reason: str, refusal: Refusal) -> None:
        self._refused[reason] += 1
        self._note(f"{refusal.code.name.lower()} for {incoming.origin}: {refusal.reason}")
        with contextlib.suppress(NodeError):  # gone: nobody is left to tell
            await incoming.refuse(refusal.code, encode(refusal))

    def _stats(self) -> figures.Stats:
        node, relay, cache, ledger = (
            self._node,
            self._relay,
            self._gate.resolver.cache,
            self._ledger,
        )
        shift = _shift()
        accounts = ledger.accounts.values()
        return figures.Stats(
            node=self._options.node, key=node.key if node else "", port=self._options.port,
            since=self._since, access="keys" if self._options.allow_key else "all", load=self._load(),
            connections=ledger.connections, dialling=self._dials.total(),
            associations=ledger.associations, opened=self._opened, refused=dict(self._refused),
            dropped=dict(relay.dropped) if relay is not None else {},
            bytes_in=sum(account.bytes_in for account in accounts),
            bytes_out=sum(account.bytes_out for account in accounts),
            resolver=figures.ResolverFigures(len(cache), cache.hits, cache.misses),
            keys=figures.of_keys(ledger, shift), keys_known=len(ledger.accounts),
        )  # fmt: skip


def _shift() -> float:
    """What makes Unix time of the monotonic clock."""
    return time.time() - time.monotonic()
