"""What the broker remembers: connections, sessions, subscriptions."""

from __future__ import annotations

from dataclasses import dataclass, field

from bus import wire
from bus.access import Rights
from bus.routing.outbox import Drops, Outbox, Outgoing
from bus.signals import AccessEntry, SessionInfo


@dataclass(frozen=True, slots=True)
class Connection:
    """How the transport knows a peer."""

    rid: bytes  # routing id: chosen by the peer, unguessable, never shown to anybody
    user: str  # "<key> <connection number>", set by our ZAP handler on every frame
    fd: int = -1
    inode: int = 0  # of the descriptor's socket: descriptors are reused, inodes are not

    @property
    def key(self) -> str:
        return self.user.partition(" ")[0]

    @property
    def number(self) -> int:
        return int(self.user.partition(" ")[2])


@dataclass(slots=True, eq=False)
class Subscription:
    session: Session
    pattern: str
    drops: Drops
    group: str = ""  # of which it is a member
    window: int = 0  # of a member: messages under way to it at once; 0: no limit
    used: int = 0


@dataclass(frozen=True, slots=True)
class Will:
    """What is published for a session that ends without having said so."""

    subject: str
    body: bytes


@dataclass(eq=False)
class Session:
    """One connection of one key, from its HELLO to its end."""

    connection: Connection
    number: int
    name: str
    entry: AccessEntry  # of the access list, as it was last looked at
    rights: Rights
    since: float  # Unix seconds
    heard: float  # monotonic seconds
    outbox: Outbox
    caps: frozenset[str] = frozenset()
    bundles: bool = False  # named in `caps`
    parcel: Outgoing | None = None  # out of the outbox, not yet taken by the transport
    lang: str = ""
    ver: str = ""
    key: str = ""  # Z85; this and the next are fields because every message needs them
    user: str = ""
    open: bool = True
    will: Will | None = None
    subscriptions: dict[int, Subscription] = field(default_factory=dict)
    served: set[str] = field(default_factory=set)
    inflight: int = 0  # requests of ours that wait for a reply
    allowed: dict[tuple[str, str], bool] = field(default_factory=dict)  # cache over `rights`
    bytes_in: int = 0
    bytes_out: int = 0
    messages_in: int = 0
    messages_out: int = 0

    def __post_init__(self) -> None:
        self.key = self.connection.key
        self.user = self.connection.user
        self.bundles = wire.BUNDLES in self.caps

    @property
    def roles(self) -> list[str]:
        return self.entry.roles

    def info(self) -> SessionInfo:
        return SessionInfo(
            key=self.key, name=self.name, since=self.since,
            bytes_in=self.bytes_in, bytes_out=self.bytes_out,
            messages_in=self.messages_in, messages_out=self.messages_out,
            subscriptions=len(self.subscriptions), session=self.number, roles=self.roles,
            lang=self.lang, ver=self.ver, services=len(self.served), queued=self.outbox.messages,
            queued_bytes=self.outbox.bytes, lost=self.outbox.lost,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stray:
    """A head for a connection that has no session (any more); `cut` when it must not stay."""

    connection: Connection
    head: bytes
    cut: bool
