"""What is typed: bodies, and public keys in Z85 as everywhere, or in hex, which no shell touches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from viscript.commands.bus import complete

MAX_WORD = 64  # characters
FORMS = "40 characters (quote them from the shell), or 64 hex digits"
KeyArgument = Annotated[
    str,
    typer.Argument(metavar="KEY", autocompletion=complete.keys, help=f"Public key: {FORMS}."),
]
Body = Annotated[
    str | None,
    typer.Argument(
        metavar="[BODY|-]",
        help="-: standard input. Absent: empty. Write -- before one that begins with a dash.",
    ),
]
BodyFile = Annotated[Path | None, typer.Option(metavar="FILE", help="The body is in FILE.")]


def word(option: str, text: str) -> str:
    """What an option names; `BadUsage` when it is empty or longer than the protocol takes."""
    from viscript.errors import BadUsage

    if not text:
        raise BadUsage(f"{option} is empty")
    if len(text) > MAX_WORD:
        raise BadUsage(f"{option} has {len(text)} characters, at most {MAX_WORD}")
    return text


def key(text: str) -> str:
    """The key in Z85; `BadUsage` when it is none."""
    from viscript.errors import BadUsage

    found = key_or_none(text)
    if found is None:
        raise BadUsage(f"not a public key: {text!r}; it has {FORMS}")
    return found


def key_or_none(text: str) -> str | None:
    """The key in Z85, if it is one."""
    from bus.identity import from_hex, is_key

    if is_key(text):
        return text
    try:
        return from_hex(text)
    except ValueError:
        return None


def for_shell(public: str) -> str:
    """A key as it can be typed anywhere: some begin with a dash, most have characters that shells touch."""
    from bus.identity import to_hex

    return to_hex(public)
