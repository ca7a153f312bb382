"""The commands of the registry as typer wants them: each is built when it is typed, none before."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import typer
from typer.core import TyperGroup

from viscript.surface import registry

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter

    from viscript.surface.registry import Entry

_VERBATIM = {"ignore_unknown_options": True, "allow_interspersed_args": False}


class Commands(TyperGroup):
    """The group `viscript`."""

    def list_commands(self, ctx: Context) -> list[str]:  # noqa: ARG002 - typer's signature
        return [name for entry in registry.entries() for name in (entry.name, *entry.short)]

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:  # noqa: ARG002
        entry = registry.find(cmd_name)
        return None if entry is None else build(entry, cmd_name)

    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, Command | None, list[str]]:
        # The keys are what "did you mean" looks at.
        self.commands = {name: self for entry in registry.entries() for name in entry.names}
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002
        """By theme, and without importing any of them."""
        for theme in registry.THEMES:
            rows = [(", ".join((x.name, *x.short)), x.help) for x in theme.entries]
            if rows:
                with formatter.section(theme.title):
                    formatter.write_dl(rows)


def build(entry: Entry, name: str) -> Command:
    """The command behind an entry; its file is imported only now."""
    module, _, attribute = entry.where.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, typer.Typer):
        command: Command = typer.main.get_group(found)
    else:
        template = typer.Typer(add_completion=False, rich_markup_mode=None)
        template.command(name, context_settings=_VERBATIM if entry.verbatim else None)(found)
        command = typer.main.get_command(template)
    command.name = name
    return command
