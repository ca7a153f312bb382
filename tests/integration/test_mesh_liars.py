"""Nodes that lie to the manager and to each other, in league: it stands, and honest nodes notice nothing."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from bus import Refused, Request
from nodes import api
from nodes.manager.claims import MAX_OF_ONE
from nodes.manager.roster import MAX_PAIRS_OF_ONE
from tests.support.memory_mesh import keypair
from tests.support.small_bus import Participant
from tests.support.whole_mesh import WholeMesh

if TYPE_CHECKING:
    from collections.abc import Callable

    import msgspec

    Said = tuple[str, msgspec.Struct]

LIARS = 4
WORDS = 300
NUMBERS = (0, 1, 1000, 2**62, 2**63 - 1)
AMOUNTS = (0.0, 0.01, 1.0, 1e308, float("inf"), float("nan"))


class League:
    """Keys of nodes that say anything, of themselves and of others."""

    def __init__(self, mesh: WholeMesh, seed: int) -> None:
        self.mesh = mesh
        self.chance = random.Random(seed)
        self.keys = [keypair(f"liar {number}").public for number in range(LIARS)]
        self.all = [*self.keys, *self.keys, *(node.key for node in mesh.nodes.values())]
        self.surprises: list[BaseException] = []
        for key in self.keys:
            Participant(mesh.broker, key).answer(api.ORDER, self.obey)
        self.words: list[Callable[[], Said]] = [
            self.registration,
            self.registration,
            self.standing,
            lambda: (api.LINK, api.LinkReport(self.key(), up=self.maybe())),
            lambda: (api.DIAL, api.Query(self.key())),
            lambda: (api.ROUTE, api.Query(self.key())),
            lambda: (api.ROUTE, api.Query("n0")),
            lambda: (api.RELEASE, api.Release(self.route(), "", self.key(), self.maybe())),
        ]

    async def obey(self, _order: Request) -> bytes:
        """An order's answer: a label that is none of theirs, or nothing of sense."""
        label = api.pack(api.Installed(self.chance.randrange(1, 1 << 32)))
        return self.chance.choice([label, label, b"", b"\xff"])

    def speak(self) -> None:
        """One of them says something to the manager."""
        subject, body = self.chance.choice(self.words)()
        packed = api.pack(body) if self.chance.random() > 0.05 else self.chance.randbytes(40)
        request = Request(subject, self.chance.choice(self.keys), packed, 3.0)
        self.mesh.loop.create_task(self._say(request))

    async def _say(self, request: Request) -> None:
        handler = self.mesh.broker.served[request.subject].handlers[request.subject]
        try:
            await asyncio.wait_for(handler(request), 20)
        except (Refused, TimeoutError):
            pass
        except Exception as error:  # noqa: BLE001 - shown at the end
            self.surprises.append(error)

    def key(self) -> str:
        return self.chance.choice(self.all)

    def maybe(self) -> bool:
        return self.chance.random() < 0.5

    def path(self) -> list[str]:
        return [self.key() for _ in range(self.chance.randint(2, 17))]

    def route(self) -> str:
        """One that they made up, or one of others."""
        manager = self.mesh.manager
        assert manager is not None
        there = [r.name for pair in manager._planner.pairs.values() for r in pair.routes]
        return self.chance.choice([f"{self.chance.randrange(8):016x}", *there])

    def registration(self) -> Said:
        choice = self.chance.choice
        links = [
            api.LinkState(self.key(), *(choice(AMOUNTS) for _ in range(6)))
            for _ in range(self.chance.randrange(8))
        ]
        name, boot = choice(["n0", "liar", "other"]), bytes([self.chance.randrange(3)]) * 16
        numbers = (choice(NUMBERS) for _ in range(2))
        counts = (choice(NUMBERS) for _ in range(2))
        return api.REGISTER, api.Registration(name, "", boot, *numbers, links, *counts, 3)

    def standing(self) -> Said:
        path = self.path()
        said = [
            api.StandingRoute(self.route(), self.chance.choice([path, path[::-1]]), self.maybe())
            for _ in range(self.chance.randrange(6))
        ]
        return api.STANDING, api.Standing(said, self.chance.random() < 0.2)


@pytest.mark.parametrize("seed", range(4))
def test_honest_nodes_talk_on_while_others_lie(seed: int) -> None:
    names = [f"n{number}" for number in range(6)]
    mesh = WholeMesh(names)
    try:
        for number, name in enumerate(names):
            mesh.link(name, names[number - 1])
            mesh.link(name, names[number - 2])
        mesh.run(3.0)
        league = League(mesh, seed)
        early = mesh.talk("n1", "n4")
        for word in range(WORDS):
            league.speak()
            early.say(word % 2, 1000)
            if league.chance.random() < 0.3:
                mesh.run(league.chance.choice([0.01, 0.5, 2.0, 14.0]))
        late = mesh.talk("n0", "n3")
        late.say(0, 1000)
        late.say(1, 1000)
        mesh.run(25.0)
        assert early.complete
        assert late.complete
        assert not league.surprises
        manager = mesh.manager
        assert manager is not None
        assert len(manager._planner.pairs) <= 2 + LIARS * MAX_PAIRS_OF_ONE
        assert sum(map(len, manager._planner._claims._claims.values())) <= LIARS * MAX_OF_ONE
        for node in mesh.nodes.values():
            honest = {other.key for other in mesh.nodes.values()}
            assert set(node.engine.sessions) <= honest | set(league.keys)
    finally:
        mesh.close()
