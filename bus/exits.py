"""How the commands of `bus-broker` end when they cannot do what they were asked."""

from __future__ import annotations

from typing import NoReturn

import typer

EXIT_CONFIG = 8
EXIT_CONFLICT = 9


def fail(problem: str, code: int = EXIT_CONFIG) -> NoReturn:
    """Tell on standard error and end."""
    typer.echo(f"bus-broker: {problem}", err=True)
    raise typer.Exit(code)
