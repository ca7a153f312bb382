"""What the supervisor is told, and what it wants done."""

from __future__ import annotations

from dataclasses import dataclass

from viscript.supervision.launch import Launch
from viscript.supervision.states import Exit, State

# Events.


@dataclass(frozen=True)
class Start:
    launch: Launch


@dataclass(frozen=True)
class Adopt:
    """A launch of an earlier daemon whose process is alive."""

    launch: Launch


@dataclass(frozen=True)
class Missed:
    """A launch of an earlier daemon of whose last generation nothing is left."""

    launch: Launch
    exit: Exit


@dataclass(frozen=True)
class Completed:
    """An app has ended well under an earlier daemon: what waits for that need not wait."""

    app: str


@dataclass(frozen=True)
class Spawned:
    id: int
    generation: int


@dataclass(frozen=True)
class SpawnFailed:
    id: int
    generation: int
    reason: str
    permanent: bool  # the same attempt would fail again


@dataclass(frozen=True)
class Ready:
    """It does its work; of no generation when a key came onto the bus, which knows of none."""

    id: int
    generation: int | None = None


@dataclass(frozen=True)
class Well:
    """Its probe says that it is well again."""

    id: int
    generation: int


@dataclass(frozen=True)
class Unwell:
    """Its probe has failed as often as it may."""

    id: int
    generation: int
    reason: str


@dataclass(frozen=True)
class Extended:
    """It asks for more time to begin or to end, until then on the clock of `now`."""

    id: int
    generation: int
    until: float


@dataclass(frozen=True)
class Exited:
    """The program ended; what it started may still be there."""

    id: int
    generation: int
    exit: Exit


@dataclass(frozen=True)
class Ended:
    """Nothing of the generation is left."""

    id: int
    generation: int
    exit: Exit


@dataclass(frozen=True)
class Mute:
    """Neither alive nor dead can be proved."""

    id: int
    reason: str


@dataclass(frozen=True)
class Found:
    """What was lost is alive and under control again."""

    id: int


@dataclass(frozen=True)
class Stop:
    """Its dependants stop first. With `force` it is killed at once."""

    id: int
    force: bool = False


@dataclass(frozen=True)
class Again:
    """Stop it and start it, or start it now if it waits to be started."""

    id: int


@dataclass(frozen=True)
class Update:
    """Other rules for a launch that lives; its state stays as it is."""

    launch: Launch


@dataclass(frozen=True)
class Down:
    """Everything stops, dependants first, the broker last."""


# Stale when another run has begun.
OfRun = Spawned | SpawnFailed | Well | Unwell | Extended | Exited | Ended
OfOne = OfRun | Ready | Mute | Found | Stop | Again
Event = OfOne | Start | Adopt | Missed | Completed | Update | Down


# Actions.


@dataclass(frozen=True)
class Spawn:
    id: int
    generation: int


@dataclass(frozen=True)
class Terminate:
    """Ask it over the bus if it is there, then its signals, then KILL; with `force` KILL at once."""

    id: int
    force: bool = False


@dataclass(frozen=True)
class Changed:
    """`before` is None for a launch that is new here."""

    launch: Launch
    before: State | None = None


Action = Spawn | Terminate | Changed
