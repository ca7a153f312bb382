"""What the client tells of itself: exit, since when, figures, what is blocked. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apps.vpn.leasing import Held
    from apps.vpn.messages import Status
    from nodes.client import TunnelStats

SUBJECT: Final = "vpn.status"  # a request to the client's own key; the answer is a Told


class Figures(msgspec.Struct, frozen=True):
    """What went through the tunnel since the node has it, and how much a second of late."""

    at: float = 0.0  # s, monotonic
    bytes_in: int = 0
    bytes_out: int = 0
    packets_in: int = 0
    packets_out: int = 0
    rate_in: float = 0.0  # bytes/s
    rate_out: float = 0.0
    round_trip: float | None = None  # s
    dropped: dict[str, int] = {}  # packets, by the reason
    offload: list[str] = []

    @classmethod
    def of(cls, stats: TunnelStats, at: float, before: Figures) -> Figures:
        peers = stats.peers
        came, went = sum(peer.bytes_in for peer in peers), sum(peer.bytes_out for peer in peers)
        # A tunnel that was begun anew, or another exit, counts from nothing.
        lasting = at - before.at if before.at and at > before.at else float("inf")
        dropped = dict(stats.dropped)
        for peer in peers:
            for reason, count in peer.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + count
        return cls(
            at=at,
            bytes_in=came,
            bytes_out=went,
            packets_in=sum(peer.packets_in for peer in peers),
            packets_out=sum(peer.packets_out for peer in peers),
            rate_in=max(0, came - before.bytes_in) / lasting,
            rate_out=max(0, went - before.bytes_out) / lasting,
            round_trip=next((p.round_trip for p in peers if p.round_trip is not None), None),
            dropped=dropped,
            offload=list(stats.offload),
        )


class Told(msgspec.Struct, frozen=True):
    """The answer to `SUBJECT`."""

    state: str  # "connected" or "connecting"
    node: str  # the near one
    exit: str  # as it was named; empty while there is none
    since: float  # Unix s: when this state began
    trouble: str  # why there is no exit, or what went wrong
    addresses: list[str]
    resolvers: list[str]
    mtu: int
    limits: dict[str, int]  # of the exit: bytes/s, connections, bytes a day; 0 is none
    load: float  # of the exit, 0 to 1
    clients: int  # of the exit
    volume: int  # bytes that count towards the limit
    blocked: dict[str, int]  # packets, at the exit, by the reason
    figures: Figures


class Standing:
    """What is known just now."""

    def __init__(self) -> None:
        self.node = ""
        self.held: Held | None = None
        self.since = 0.0
        self.trouble = "just begun"
        self.note = ""  # something that is worth knowing and ended nothing
        self.status: Status | None = None
        self.figures = Figures()

    def connected(self, held: Held, now: float) -> None:
        self.held, self.since, self.trouble, self.status = held, now, "", None

    def lost(self, why: str) -> None:
        self.held, self.trouble, self.status = None, why, None

    def told(self) -> Told:
        lease = self.held.lease if self.held else None
        status = self.status
        limits: Mapping[str, Any] = msgspec.structs.asdict(lease.limits) if lease else {}
        return Told(
            state="connected" if self.held else "connecting",
            node=self.node,
            exit=self.held.place.node if self.held else "",
            since=self.since,
            trouble=self.trouble or self.note,
            addresses=[str(lease.address4), str(lease.address6)] if lease else [],
            resolvers=list(lease.resolver) if lease else [],
            mtu=lease.mtu if lease else 0,
            limits=dict(limits),
            load=status.load if status else 0.0,
            clients=status.clients if status else 0,
            volume=status.volume if status else 0,
            blocked=dict(status.blocked) if status else {},
            figures=self.figures,
        )
