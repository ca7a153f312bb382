"""An office at the table: somebody who asks, and workers that serve app.job."""

from typing import Any

from bus import wire
from bus.routing.sessions import LIMITS
from tests.support.dialogue import Peer, Table


def office(*workers: str, inflight: int = 1, limits: wire.Limits = LIMITS) -> Any:
    """Table, requester, and workers that serve app.job with this limit."""
    table = Table(limits, alice="app", bob="app", carol="app", dave="app", root="admin")
    peers = [table.join(name) for name in workers]
    for peer in peers:
        assert peer.say(wire.Serve(1, "app.job", inflight=inflight)) == [wire.Ok(1)]
    return table, table.join("alice"), *peers


def ask(peer: Peer, ref: int, seconds: float = 2.0, subject: str = "app.job") -> None:
    peer.say_later(wire.Request(ref, subject, int(seconds * 1000)), b"%d" % ref)


def got(peer: Peer) -> list[tuple[int, bytes | None]]:
    """Handles and bodies of what it is asked."""
    heard = peer.hears_bodies()
    assert all(isinstance(command, wire.RequestDelivery) for command, _ in heard), heard
    return [(command.r, body) for command, body in heard]  # type: ignore[attr-defined]


def services(peer: Peer) -> list[dict[str, object]]:
    found: list[dict[str, object]] = peer.asks("$SYS.services")["services"]
    return found
