"""What the shell offers for a word that is being typed. Nothing it finds wrong is worth a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import typer

from viscript import options
from viscript.errors import ViscriptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
PATIENCE = 0.5  # seconds for the broker: somebody has pressed a key


def contexts(incomplete: str) -> list[str]:
    """Names of contexts."""
    from viscript.commands.bus import where

    return [name for name in where.contexts().names() if name.startswith(incomplete)]


def topics(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of durable topics."""
    from bus.signals import TOPICS, Topics

    found = _ask(ctx, TOPICS, Topics)
    names = [info.config.topic for info in found.topics] if found else []
    return [name for name in names if name.startswith(incomplete)]


def consumers(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the consumers of the topic that was typed before."""
    from bus.signals import CONSUMERS, Consumers

    found = _ask(ctx, CONSUMERS, Consumers)
    topic = ctx.params.get("topic")
    return [
        info.config.consumer
        for info in (found.consumers if found else [])
        if info.config.topic == topic and info.config.consumer.startswith(incomplete)
    ]


def services(ctx: typer.Context, incomplete: str) -> list[str]:
    """Subjects that somebody serves."""
    from bus.signals import SERVICES, Services

    found = _ask(ctx, SERVICES, Services)
    subjects = {info.subject for info in found.services} if found else set()
    return sorted(subject for subject in subjects if subject.startswith(incomplete))


def sessions(ctx: typer.Context, incomplete: str) -> list[str]:
    """Numbers of the sessions that are there."""
    from bus.signals import SESSIONS, Sessions

    found = _ask(ctx, SESSIONS, Sessions)
    numbers = [str(info.session) for info in found.sessions] if found else []
    return [number for number in numbers if number.startswith(incomplete)]


def keys(ctx: typer.Context, incomplete: str) -> list[str]:
    """Keys of the access list, in the form that no shell touches."""
    from bus.identity import to_hex
    from bus.signals import ACCESS_LIST, AccessEntries

    found = _ask(ctx, ACCESS_LIST, AccessEntries)
    public = [to_hex(entry.key) for entry in found.keys] if found else []
    return [key for key in public if key.startswith(incomplete)]


def fingerprints(ctx: typer.Context, incomplete: str) -> list[str]:
    """Of those who wait for an admin."""
    from bus.signals import ENROL_LIST, Enrolments

    found = _ask(ctx, ENROL_LIST, Enrolments)
    prints = [pending.fingerprint for pending in found.pending] if found else []
    return [text for text in prints if text.startswith(incomplete)]


def roles(incomplete: str) -> list[str]:
    """Roles that a key can have."""
    from bus.access import ROLES

    return [role for role in ROLES if role.startswith(incomplete)]


def words(*known: str) -> Callable[[str], list[str]]:
    """These, and nothing else."""
    return lambda incomplete: [word for word in known if word.startswith(incomplete)]


def _ask(ctx: typer.Context, subject: str, kind: type[T]) -> T | None:
    from viscript.commands.bus.connection import ask

    for above in reversed(list(_line(ctx))):
        values = above.params
        options.given.take(values.get("home"), json=False, context=values.get("context"))
    try:
        return ask(subject, None, kind, timeout=PATIENCE)
    except (ViscriptError, OSError):
        return None


def _line(ctx: typer.Context) -> Iterator[typer.Context]:
    """It, and those above it."""
    here: Any = ctx
    while here is not None:
        yield here
        here = here.parent
