"""What a node does for its manager: checks signed orders, carries them out, knows what stands.

The only place that changes routes in the engine on somebody else's word.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from bus import Refused
from bus.identity import is_key, short
from nodes import api
from nodes.mesh import NoSuchNeighbour, Onward, TableFull
from nodes.orders import (
    Bind,
    Expect,
    Guard,
    Install,
    NotObeyed,
    Order,
    Prefer,
    Remove,
    Signed,
    Suggest,
)
from nodes.pinning import pin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bus import Request
    from nodes.engine import Engine

log = logging.getLogger(__name__)

UNUSED_AFTER: Final = 600.0  # s without a stream, then the routes to a peer are given back


class WrongManager(Exception):
    """Another node manager answers than the one that this node obeys; says the way out."""


class Obedience:
    """`guard` says whose orders count, `pin_file` remembers whose; see `suggested`.

    `expect` is told of keys that will dial in; it says whether they may.
    """

    def __init__(
        self, engine: Engine, guard: Guard, expect: Callable[[str], bool], pin_file: Path
    ) -> None:
        self.guard = guard
        self.suggested: Callable[[list[tuple[str, str]]], None] = lambda _peers: None
        self._pin_file = pin_file
        self._engine = engine
        self._may_dial = expect
        self._ends: dict[str, Bind] = {}  # by route: what ends here
        self._quiet: dict[str, float] = {}  # by peer: since when it has no stream

    @staticmethod
    def clock() -> int:
        """The node's clock in ms, by which orders expire."""
        return int(time.monotonic() * 1000)

    def trust(self, manager: str) -> None:
        """Obey the first manager, and no other after it; raises WrongManager, PinError."""
        guard = self.guard
        if guard.manager is None:
            if not is_key(manager):
                raise WrongManager(f"what answers as the node manager has no key: {manager!r}")
            pin(self._pin_file, manager)
            guard.manager = manager
            log.info("this node obeys the node manager %s from now on", short(manager))
        elif guard.manager != manager:
            raise WrongManager(
                f"the node manager {manager!r} answers, but this node obeys {guard.manager!r}; if the "
                f"new one is right, start the node with --manager or remove {self._pin_file}"
            )

    async def handle(self, request: Request) -> bytes:
        """node.order; whoever sent it, the signature says whose it is."""
        try:
            signed = api.unpack(request.body, Signed)
            order = self.guard.check(signed, self.clock())
            return api.pack(self._carry_out(signed.route, order))
        except api.BadBody as error:
            raise Refused(400, "bad_body", str(error)) from None
        except NotObeyed as error:
            raise Refused(403, error.name, str(error)) from None
        except NoSuchNeighbour as error:
            raise Refused(409, "no_link", f"there is no link to {error}") from None
        except TableFull as error:
            raise Refused(503, "table_full", f"too many routes from {error}") from None

    def _carry_out(self, route: str, order: Order) -> api.Installed | api.Empty:
        match order:
            case Install():
                return api.Installed(self._install(route, order))
            case Bind(peer, hop):
                onward = Onward(hop.neighbour, hop.label)
                self._engine.bind(route, peer, onward, standby=not order.active)
                self._ends[route] = order
            case Prefer(peer):
                if not self._engine.prefer(route, peer):
                    raise Refused(409, "no_route", f"route {route} does not end here")
            case Remove():
                self._ends.pop(route, None)
                self._engine.remove(route)
            case Expect(key):
                self._expect(key)
            case Suggest(peers):
                self.suggested([(peer.key, peer.endpoint) for peer in peers])
        return api.Empty()

    def _install(self, route: str, order: Install) -> int:
        onward = Onward(order.onward.neighbour, order.onward.label) if order.onward else None
        if order.peer is not None:
            # Until it is bound nobody says that it is more than a standby.
            return self._engine.end(route, order.neighbour, order.peer, onward, standby=True)
        if onward is None:
            raise Refused(400, "bad_body", "a route that neither ends here nor goes on")
        return self._engine.relay(route, order.neighbour, onward)

    def _expect(self, key: str) -> None:
        if not self._may_dial(key):
            raise Refused(403, "not_allowed", f"{short(key)} may not be a neighbour of this node")

    def standing(self) -> list[api.StandingRoute]:
        """The routes that end here, and which of them are used."""
        found = []
        for route, bound in list(self._ends.items()):
            if self._engine.has_way(route, bound.peer):
                used = self._engine.sessions[bound.peer].ways.used
                active = used is not None and used.route == route
                found.append(api.StandingRoute(route, bound.path, active))
            else:
                del self._ends[route]
        return found

    def path(self, route: str) -> list[str]:
        """A route that ends here, as it was laid; empty when that is not known."""
        bound = self._ends.get(route)
        return bound.path if bound is not None else []

    def unused(self, now: float) -> list[str]:
        """A route to each peer that nobody here has used for long; asked every few seconds."""
        quiet = {
            peer: self._quiet.get(peer, now)
            for peer, session in self._engine.sessions.items()
            if not session.is_wanted(now)
        }
        self._quiet = quiet
        found = {
            bound.peer: route
            for route, bound in self._ends.items()
            if now - quiet.get(bound.peer, now) > UNUSED_AFTER
        }
        return list(found.values())
