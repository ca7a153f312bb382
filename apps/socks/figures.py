"""What an exit tells of itself on the bus: `socks.stats` to its key, a MessagePack map (docs/socks.md)."""

from typing import Final

import msgspec

from apps.egress.ledger import Account, Ledger

STATS: Final = "socks.stats"
SERVED: Final = "app.socks.stats"  # the same as a service, by which exits are found
MAX_KEYS: Final = 256  # in one answer: those with the most bytes


class KeyFigures(msgspec.Struct, frozen=True):
    """What one node's key has used, and may use (0: no limit)."""

    key: str
    since: float  # Unix s
    connections: int
    associations: int
    opened: int
    refused: dict[str, int]
    bytes_in: int  # from targets
    bytes_out: int  # to targets
    used: int  # of the volume, in its period
    volume: int
    rate: int  # bytes/s


class ResolverFigures(msgspec.Struct, frozen=True):
    entries: int  # answers that are kept
    hits: int
    misses: int


class Stats(msgspec.Struct, frozen=True):
    """One exit. Counters since `since`, Unix s."""

    node: str
    key: str  # of the node
    port: int
    since: float
    access: str  # all or keys
    load: float  # 0 to 1
    connections: int  # now
    dialling: int
    associations: int
    opened: int
    refused: dict[str, int]  # by reason
    dropped: dict[str, int]  # datagrams, by reason
    bytes_in: int
    bytes_out: int
    resolver: ResolverFigures
    keys: list[KeyFigures]
    keys_known: int  # of which `keys` are the first


def of_keys(ledger: Ledger, shift: float) -> list[KeyFigures]:
    """Figures of those who moved most; `shift` makes Unix time of the ledger's clock."""
    accounts = sorted(
        ledger.accounts.values(), key=lambda a: a.bytes_in + a.bytes_out, reverse=True
    )
    return [_of_key(account, shift) for account in accounts[:MAX_KEYS]]


def _of_key(account: Account, shift: float) -> KeyFigures:
    limits = account.limits
    return KeyFigures(
        account.key, account.since + shift, account.connections, account.associations, account.opened,
        dict(account.refused), account.bytes_in, account.bytes_out, account.used, limits.volume,
        limits.rate,
    )  # fmt: skip


def encode(stats: Stats) -> bytes:
    return msgspec.msgpack.encode(stats)
