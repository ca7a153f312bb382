"""Arguments of the commands about terminals of apps."""

# ruff: noqa: FBT002 - typer makes options of parameters

from __future__ import annotations

import sys
from typing import Annotated

import typer

from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import Target, as_json, client


def attach(
    target: Target,
    read_only: Annotated[bool, typer.Option("--read-only", "-r", help="Only look.")] = False,
    key: Annotated[
        str, typer.Option("--detach-key", metavar="KEY", help="Leaves it running.")
    ] = "ctrl-]",
    home: HomeOption = None,
) -> None:
    """Use the terminal of an app that has one; several may look, one types."""
    from viscript.commands import attach as command

    byte = command.key_of(key)
    with client(home) as daemon:
        code = command.run(daemon, target, byte, read_only=read_only)
    raise typer.Exit(code)


def send(
    target: Target,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Else standard input.")
    ] = None,
    line: Annotated[bool, typer.Option("--line/--no-line", help="With Enter at the end.")] = True,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Type into the terminal of an app."""
    from viscript.commands import send as command

    if words:
        data = " ".join(words).encode(errors="surrogateescape") + (b"\r" if line else b"")
    else:
        data = sys.stdin.buffer.read(command.MAX_DATA + 1)
    with client(home) as daemon:
        command.run(daemon, target, data, as_json=as_json(json))
