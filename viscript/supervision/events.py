"""What the supervisor is told, and what it wants done."""

from __future__ import annotations

from msgspec import Struct

from viscript.supervision.launch import Launch
from viscript.supervision.states import Exit, State

# Events.


class Start(Struct, frozen=True):
    launch: Launch


class Adopt(Struct, frozen=True):
    """A launch of an earlier daemon whose process is alive."""

    launch: Launch


class Missed(Struct, frozen=True):
    """A launch of an earlier daemon of whose last generation nothing is left."""

    launch: Launch
    exit: Exit


class Completed(Struct, frozen=True):
    """An app has ended well under an earlier daemon: what waits for that need not wait."""

    app: str


class Spawned(Struct, frozen=True):
    id: int
    generation: int


class SpawnFailed(Struct, frozen=True):
    id: int
    generation: int
    reason: str
    permanent: bool  # the same attempt would fail again


class Ready(Struct, frozen=True):
    """It does its work; of no generation when a key came onto the bus, which knows of none."""

    id: int
    generation: int | None = None


class Well(Struct, frozen=True):
    """Its probe says that it is well again."""

    id: int
    generation: int


class Unwell(Struct, frozen=True):
    """Its probe has failed as often as it may."""

    id: int
    generation: int
    reason: str


class Extended(Struct, frozen=True):
    """It asks for more time to begin or to end, until then on the clock of `now`."""

    id: int
    generation: int
    until: float


class Exited(Struct, frozen=True):
    """The program ended; what it started may still be there."""

    id: int
    generation: int
    exit: Exit


class Ended(Struct, frozen=True):
    """Nothing of the generation is left."""

    id: int
    generation: int
    exit: Exit


class Mute(Struct, frozen=True):
    """Neither alive nor dead can be proved."""

    id: int
    reason: str


class Found(Struct, frozen=True):
    """What was lost is alive and under control again."""

    id: int


class Stop(Struct, frozen=True):
    """Its dependants stop first. With `force` it is killed at once."""

    id: int
    force: bool = False


class Again(Struct, frozen=True):
    """Stop it and start it, or start it now if it waits to be started."""

    id: int


class Update(Struct, frozen=True):
    """Other rules for a launch that lives; its state stays as it is."""

    launch: Launch


class Down(Struct, frozen=True):
    """Everything stops, dependants first, the broker last."""


# Stale when another run has begun.
OfRun = Spawned | SpawnFailed | Well | Unwell | Extended | Exited | Ended
OfOne = OfRun | Ready | Mute | Found | Stop | Again
Event = OfOne | Start | Adopt | Missed | Completed | Update | Down


# Actions.


class Spawn(Struct, frozen=True):
    id: int
    generation: int


class Terminate(Struct, frozen=True):
    """Ask it over the bus if it is there, then its signals, then KILL; with `force` KILL at once."""

    id: int
    force: bool = False


class Changed(Struct, frozen=True):
    """`before` is None for a launch that is new here."""

    launch: Launch
    before: State | None = None


Action = Spawn | Terminate | Changed


def is_stale(event: OfOne, launch: Launch) -> bool:
    """Whether it tells of another generation than the one that lives."""
    if isinstance(event, OfRun):
        return event.generation != launch.generation or not launch.living
    if isinstance(event, Ready):
        return event.generation not in (None, launch.generation)
    return False
