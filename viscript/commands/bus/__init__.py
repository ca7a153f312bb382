"""`viscript bus …`: the bus by hand. One file per concept, loaded when its verb is typed.

A new verb is a file here whose `app` holds it, and a line in `VERBS`. Every verb has the options of
`_common` without naming them: `where.here()` and `options.as_json()` know what was given. So that help and
completion cost little, the files import only typer at their top; what does the work is imported by who
does it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from viscript import options
from viscript.options import HomeOption, JsonOption

if TYPE_CHECKING:
    from typer._click import Command, Context, Parameter

HELP = """Publish, ask, watch and look after the message bus.

Which broker: --context NAME, else --home DIR, else $VISCRIPT_CONTEXT, else $VISCRIPT_HOME, else the
context chosen by `viscript bus context use`, else the user's own instance. Subjects are words joined by
dots; in patterns `*` stands for one word and a last `>` for all that follow (quote them from the shell)."""

# By verb, in the order of the help: the file of this folder that has it.
VERBS = {
    "pub": "pub", "sub": "sub", "req": "req", "reply": "reply",
    "rtt": "rtt", "bench": "bench", "check": "check",
    "services": "services", "sessions": "sessions", "kick": "sessions", "events": "events",
    "topics": "topics", "consumers": "consumers", "record": "record", "replay": "replay",
    "context": "context", "keys": "keys", "token": "token", "join": "join",
    "conformance": "conformance",
}  # fmt: skip


def _names(incomplete: str) -> list[str]:
    from viscript.commands.bus import complete

    return complete.contexts(incomplete)


ContextOption = Annotated[
    str | None,
    typer.Option(
        "--context", metavar="NAME", help="Which broker; see: viscript bus context.",
        autocompletion=_names,
    ),
]  # fmt: skip


_COMMON = ("context", "home", "as_json")


def _common(
    *, context: ContextOption = None, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    options.given.take(home, json=as_json, context=context)


class Verbs(TyperGroup):
    """The group `bus`: knows its verbs by name and builds the one that is asked for.

    It costs nothing while it is not used: every command of viscript makes one.
    """

    def get_params(self, ctx: Context) -> list[Parameter]:
        return [*_common_params(), *super().get_params(ctx)]

    def invoke(self, ctx: Context) -> object:
        take: Callable[..., None] = _common
        take(**{name: ctx.params[name] for name in _COMMON})
        return super().invoke(ctx)

    def list_commands(self, ctx: Context) -> list[str]:  # noqa: ARG002 - typer's signature
        return list(VERBS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"viscript.commands.bus.{VERBS[cmd_name]}")
        command = typer.main.get_command(module.app)
        if isinstance(command, TyperGroup) and cmd_name in command.commands:
            command = command.commands[cmd_name]  # a file with two verbs
        command.name = cmd_name
        return with_common(command)

    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, Command | None, list[str]]:
        # The keys are what "did you mean" looks at.
        self.commands = dict.fromkeys(VERBS, self)
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=Verbs, help=HELP, no_args_is_help=True, rich_markup_mode=None)


@functools.cache
def _common_params() -> list[Parameter]:
    template = typer.Typer(add_completion=False)
    template.command()(_common)
    return [p for p in typer.main.get_command(template).params if p.name != "help"]


def with_common(command: Command) -> Command:
    """`command`, and if it is a group those in it, with the options of `_common` as well."""
    if any(parameter.name == "context" for parameter in command.params):
        return command  # was here already
    if isinstance(command, TyperGroup):
        for inner in command.commands.values():
            with_common(inner)
    command.params = [*command.params, *_common_params()]
    command.callback = _taking_common(command.callback or (lambda: None))
    return command


def _taking_common(work: Callable[..., object]) -> Callable[..., object]:
    take: Callable[..., None] = _common

    def callback(**values: object) -> object:
        take(**{name: values.pop(name) for name in _COMMON})
        return work(**values)

    return callback
