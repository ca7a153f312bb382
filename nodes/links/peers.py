"""Which neighbours a node dials, which it lets in, and when it tries again.

Peers named by the user are dialled for as long as the node lives. Automatic ones are chosen among
what the manager suggests, and only as many as the user allows; one that cannot be reached makes
room for another. With an allow-list, nobody else becomes a neighbour, whoever dials. Synchronous;
times are passed in, and randomness too: the pauses are jittered, or all nodes would redial at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bus.identity import is_key, short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FIRST_PAUSE, LAST_PAUSE = 0.1, 3.0  # s between attempts, before jitter
STEADY: Final = 3.0  # s that a link must stand before the pauses begin anew
ATTEMPTS: Final = 4  # to reach an automatic peer, then another gets its turn
FORGIVEN: Final = 300.0  # s after which an automatic peer that failed may be tried again
MAX_EXPECTED: Final = 4096  # keys that the manager announced
MAX_SUGGESTED: Final = 256


@dataclass(frozen=True, slots=True)
class Dial:
    """Link to `target`, a name or key; where it is known from before, if it is."""

    target: str
    key: str | None
    endpoint: str | None


@dataclass(slots=True)
class Peer:
    """Somebody this node dials."""

    target: str
    automatic: bool
    key: str | None = None
    endpoint: str | None = None
    pause: float = FIRST_PAUSE
    next_at: float = 0.0  # when it is to be dialled
    dialling: bool = False
    linked_since: float | None = None
    attempts: int = 0  # that failed, one after the other
    problem: str = ""  # the last one


@dataclass(slots=True)
class Peers:
    """See the module. `jitter` returns random numbers from 0 to 1; `allowed` None: everybody."""

    own: str
    jitter: Callable[[], float]
    automatic: int = 0  # how many automatic peers at most
    allowed: frozenset[str] | None = None
    _peers: dict[str, Peer] = field(default_factory=dict)  # by target
    _linked: dict[str, float] = field(default_factory=dict)  # by key: since when
    _expected: dict[str, None] = field(default_factory=dict)
    _suggested: dict[str, str] = field(default_factory=dict)  # key -> endpoint
    _failed: dict[str, float] = field(default_factory=dict)  # automatic, by key: when

    # Who may be a neighbour ---------------------------------------------------------------------

    def permits(self, key: str) -> bool:
        """Whether `key` may be a neighbour at all: an allow-list and own choices say so."""
        if key == self.own:
            return False
        chosen = self._peers.get(key)
        return self.allowed is None or key in self.allowed or bool(chosen and not chosen.automatic)

    def expect(self, key: str) -> bool:
        """The manager announces that `key` will dial in; False when that is not to be."""
        if not self.permits(key):
            return False
        self._expected.pop(key, None)
        self._expected[key] = None
        if len(self._expected) > MAX_EXPECTED:
            del self._expected[next(iter(self._expected))]
        return True

    def admits(self, key: str) -> bool:
        """Whether `key` may dial in."""
        if not self.permits(key):
            return False
        return key in self._expected or (self.allowed is not None and key in self.allowed)

    # Whom to dial -------------------------------------------------------------------------------

    def add(self, target: str, now: float) -> None:
        """Dial `target`, a name or key, from now on."""
        peer = self._peers.get(target)
        if peer is not None:
            peer.automatic = False
            return
        key = target if is_key(target) else None
        self._peers[target] = Peer(target, automatic=False, key=key, next_at=now)

    def remove(self, target: str, now: float) -> str | None:
        """Dial `target` no more; returns its key if there is a link, for the caller to cut."""
        peer = self._peers.pop(target, None)
        if peer is None or peer.key is None:
            return None
        self._failed[peer.key] = now  # nor is it chosen again soon
        return peer.key if peer.key in self._linked else None

    def suggest(self, peers: Iterable[tuple[str, str]], now: float) -> None:
        """What the manager thinks good: (key, endpoint), the best first; replaces what it said."""
        self._suggested.clear()
        for key, endpoint in peers:
            if len(self._suggested) >= MAX_SUGGESTED:
                break
            if endpoint and self.permits(key):
                self._suggested[key] = endpoint
        self._choose(now)

    def due(self, now: float) -> list[Dial]:
        """Whom to dial now; each answers later with `found`, `failed` or `link_up`."""
        self._choose(now)
        dials = []
        for peer in self._peers.values():
            if peer.dialling or peer.next_at > now or self._is_linked(peer):
                continue
            peer.dialling = True
            dials.append(Dial(peer.target, peer.key, peer.endpoint))
        return dials

    def next_time(self) -> float | None:
        """When `due` will have something to say, as far as that is known."""
        times = [
            peer.next_at
            for peer in self._peers.values()
            if not peer.dialling and not self._is_linked(peer)
        ]
        return min(times, default=None)

    def found(self, target: str, key: str, endpoint: str, now: float) -> bool:
        """`target` is `key`, at `endpoint`. True when to go on and dial it.

        False ends the attempt: there is a link already, or it may not be a neighbour.
        """
        peer = self._peers.get(target)
        if peer is None:
            return False
        if not self.permits(key):
            self.failed(target, f"{short(key)} is not on the allow-list", now)
            return False
        peer.key, peer.endpoint = key, endpoint
        peer.dialling = key not in self._linked
        return peer.dialling

    def failed(self, target: str, problem: str, now: float) -> bool:
        """An attempt failed; True when that is news, to be said once."""
        peer = self._peers.get(target)
        if peer is None:
            return False
        peer.dialling = False
        peer.attempts += 1
        self._wait(peer, now)
        news, peer.problem = problem != peer.problem, problem
        if peer.automatic and peer.attempts >= ATTEMPTS:
            self._give_up(peer, now)
        return news

    # What became of it --------------------------------------------------------------------------

    def link_up(self, key: str, now: float) -> None:
        """A link to `key` is up, whoever dialled."""
        self._linked[key] = now
        for peer in self._peers.values():
            if peer.key == key:
                peer.dialling, peer.attempts, peer.problem = False, 0, ""

    def link_down(self, key: str, now: float) -> None:
        since = self._linked.pop(key, now)
        for peer in list(self._peers.values()):
            if peer.key == key:
                peer.dialling = False
                if now - since >= STEADY:
                    peer.pause = FIRST_PAUSE
                self._wait(peer, now)

    def since(self, key: str) -> float | None:
        """Since when there is a link to `key`."""
        return self._linked.get(key)

    def shown(self) -> list[Peer]:
        """All peers, for people to look at."""
        return list(self._peers.values())

    def _is_linked(self, peer: Peer) -> bool:
        return peer.key is not None and peer.key in self._linked

    def _wait(self, peer: Peer, now: float) -> None:
        peer.next_at = now + peer.pause * (0.5 + self.jitter())
        peer.pause = min(peer.pause * 2, LAST_PAUSE)

    def _give_up(self, peer: Peer, now: float) -> None:
        del self._peers[peer.target]
        if peer.key is not None:
            self._failed[peer.key] = now
        self._choose(now)

    def _choose(self, now: float) -> None:
        """Fill the places for automatic peers."""
        self._failed = {key: at for key, at in self._failed.items() if now - at < FORGIVEN}
        free = self.automatic - sum(peer.automatic for peer in self._peers.values())
        for key, endpoint in self._suggested.items():
            if free <= 0:
                return
            taken = key in self._peers or key in self._linked or key in self._failed
            if not taken and not any(peer.key == key for peer in self._peers.values()):
                self._peers[key] = Peer(
                    key, automatic=True, key=key, endpoint=endpoint, next_at=now
                )
                free -= 1
