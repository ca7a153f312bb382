"""What the broker remembers: connections, sessions, subscriptions."""

from __future__ import annotations

from dataclasses import dataclass, field

from bus.access import Rights
from bus.routing.outbox import Drops, Outbox
from bus.signals import SessionInfo


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


@dataclass(slots=True, eq=False)
class Subscription:
    session: Session
    pattern: str
    drops: Drops


@dataclass(eq=False)
class Session:
    """One connection of one key, from its HELLO to its end."""

    connection: Connection
    number: int
    name: str
    roles: list[str]
    rights: Rights
    since: float  # Unix seconds
    heard: float  # monotonic seconds
    outbox: Outbox
    caps: frozenset[str] = frozenset()
    lang: str = ""
    ver: str = ""
    key: str = ""  # Z85; this and the next are fields because every message needs them
    user: str = ""
    open: bool = True
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

    def info(self) -> SessionInfo:
        return SessionInfo(
            key=self.key, name=self.name, since=self.since,
            bytes_in=self.bytes_in, bytes_out=self.bytes_out,
            messages_in=self.messages_in, messages_out=self.messages_out,
            subscriptions=len(self.subscriptions),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stray:
    """A head for a connection that has no session (any more); `cut` when it must not stay."""

    connection: Connection
    head: bytes
    cut: bool
