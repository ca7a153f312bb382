"""Why a conversation may have come to a bad end: what was wrong in the mesh, and when the last time.

A conversation may be cut only if its ends could not have reached each other for as long as a session
waits. While an honest way stands between two nodes that live, and the manager and the bus work, it may not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nodes.wire import Code

if TYPE_CHECKING:
    from tests.support.talks import Conversation
    from tests.support.whole_mesh import WholeMesh

LOOK_EVERY = 0.5  # s
EXCUSED = (
    60.0  # s after trouble: 30 that a session waits without a way, and what it takes to find one
)


class Troubles:
    def __init__(self, mesh: WholeMesh) -> None:
        self._mesh = mesh
        self._looked = -LOOK_EVERY

    def look(self) -> None:
        """Note at each conversation when there was trouble; to be called often."""
        mesh = self._mesh
        now = mesh.world.now
        if now < self._looked + LOOK_EVERY:
            return
        self._looked = now
        bad = mesh.manager is None or mesh.broker.lossy > 0 or bool(mesh.broker.away)
        places = {} if bad else self._places()
        for talk in mesh.conversations:
            near, far = talk.nodes
            here, there = places.get(near.key), places.get(far.key)
            if here is None or here != there or not (near.alive and far.alive):
                talk.trouble = now

    def _places(self) -> dict[str, int]:
        """Which nodes reach each other over honest ones, as a number; the others are left out."""
        mesh = self._mesh
        sound = {
            node.name: node
            for node in mesh.nodes.values()
            if not node.foul and node.frozen_until <= mesh.world.now
        }
        near: dict[str, set[str]] = {name: set() for name in sound}
        for (a, b), link in mesh.links.items():
            back = mesh.links[b, a]
            if a in near and b in near and link.sound and back.sound:
                near[a].add(b)
        places: dict[str, int] = {}
        for number, name in enumerate(sound):
            reached = [name] if sound[name].key not in places else []
            while reached:
                here = reached.pop()
                if sound[here].key not in places:
                    places[sound[here].key] = number
                    reached += near[here]
        return places


def unexplained(talk: Conversation) -> bool:
    """Whether it was cut, or never began, though nothing was wrong."""
    ends = [side.code for side in (talk.near, talk.far) if side.code is not None]
    bad = bool(talk.problem) or any(code is not Code.DONE for code in ends)
    return bad and talk.over_at is not None and talk.over_at - talk.trouble > EXCUSED
