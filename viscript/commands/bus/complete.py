"""What the shell offers for a word that is being typed. Nothing it finds wrong is worth a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import typer

from viscript import options
from viscript.errors import ViscriptError

if TYPE_CHECKING:
    from collections.abc import Iterator

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
