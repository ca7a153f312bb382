"""Who else wants to know what happens in the engine: the node's control part, and its clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Observer:
    """Each is replaced by whoever wants to know."""

    link_up: Callable[[str], None] = lambda _neighbour: None
    link_down: Callable[[str, str], None] = lambda _neighbour, _reason: None
    # A route that ended here is down: its name, the peer, why, and the key of who says so or "".
    route_down: Callable[[str, str, str, str], None] = lambda _route, _peer, _reason, _at: None
    # A route to this peer is needed: there is none, or what there is is no good. Why.
    route_wanted: Callable[[str, str], None] = lambda _peer, _reason: None
    # The route in use to this peer is another from now on; its name, or "" for none.
    route_used: Callable[[str, str], None] = lambda _peer, _route: None
    # Call `handle_timer` at this time of the engine's clock, or earlier.
    wake: Callable[[float], None] = lambda _when: None
