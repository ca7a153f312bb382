"""The options that all commands share which change what runs: declared once, added to each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import as_json, client

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.commands.follow import How


@dataclass(frozen=True)
class Given:
    """What was typed of them."""

    timeout: float | None = None
    wait: bool = True
    dry_run: bool = False
    yes: bool = False
    batch: int = 0
    home: str | None = None
    json: bool = False

    def how(self, usual: float) -> How:
        """`usual`: seconds to wait unless it was said."""
        from viscript.commands.follow import How

        timeout = usual if self.timeout is None else self.timeout
        return How(timeout, wait=self.wait, dry=self.dry_run, yes=self.yes, as_json=self.as_json)

    @property
    def as_json(self) -> bool:
        return as_json(self.json)

    def client(self) -> Client:
        return client(self.home)


_OPTIONS: dict[str, Any] = {
    "timeout": Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="S", min=0.0, help="Wait so many seconds, then exit code 7."
        ),
    ],
    "wait": Annotated[
        bool, typer.Option("--wait/--no-wait", help="Whether to wait for what comes of it.")
    ],
    "dry_run": Annotated[bool, typer.Option("--dry-run", help="Only say what is meant.")],
    "yes": Annotated[bool, typer.Option("--yes", "-y", help="Do not ask when several are meant.")],
    "batch": Annotated[
        int,
        typer.Option(
            "--batch", metavar="N", min=0, help="N at a time; no more once one has failed."
        ),
    ],
    "home": HomeOption,
    "json": JsonOption,
}


def order(*without: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command all these options but some; it gets what was typed of them as `given`."""
    names = [name for name in _OPTIONS if name not in without]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def with_options(**typed: Any) -> Any:  # noqa: ANN401 - whatever the command takes and gives
            given = Given(**{name: typed.pop(name) for name in names})
            return command(**typed, given=given)

        plain = signature(command, eval_str=True)
        own = [x for x in plain.parameters.values() if x.name != "given"]
        kind = Parameter.KEYWORD_ONLY
        shared = [
            Parameter(x, kind, default=getattr(Given, x), annotation=_OPTIONS[x]) for x in names
        ]
        # Typer makes options of what it reads here.
        with_options.__signature__ = plain.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
        with_options.__annotations__ = {x.name: x.annotation for x in (*own, *shared)}
        return with_options

    return decorate
