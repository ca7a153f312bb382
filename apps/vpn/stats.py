"""What an exit tells of itself on the bus: `vpn.stats` to its key, a MessagePack map (docs/vpn-exit.md)."""

from typing import Final

import msgspec

STATS: Final = "vpn.stats"  # {} -> Stats
SERVED: Final = "app.vpn.stats"  # the same as a service, by which exits are found


class Client(msgspec.Struct, frozen=True):
    """A client that has a lease."""

    key: str
    v4: str
    v6: str
    since: float  # Unix s
    up: int  # bytes that it sent, and were let out
    down: int  # bytes that were let in for it
    rate_up: float  # bytes/s, lately
    rate_down: float
    volume: int  # bytes that count towards its limit of the day
    blocked: dict[str, int]  # packets, by reason
    dropped: dict[str, int]  # packets that the node dropped, by reason
    round_trip: float | None = None  # s, of the way to it


class Stats(msgspec.Struct, frozen=True):
    """An exit as it is now."""

    node: str
    key: str
    since: float  # Unix s
    clients: list[Client]
    most: int  # clients at once
    limits: dict[str, int]  # of a client: up, down, connections, volume; 0 is none
    connections: int  # of all clients
    foreign: int  # packets whose source is nobody's
    resolver: dict[str, int]  # questions, cached, failed, dropped
    offload: list[str]
    warnings: list[str]
