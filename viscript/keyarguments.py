"""Keys as arguments: one in 85 begins with a dash, and is no option all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.core import TyperCommand

if TYPE_CHECKING:
    from typer._click import Context
    from typer._click.parser import _OptionParser, _ParsingState

LENGTH = 40  # characters of a key in Z85


class TakesKeys(TyperCommand):
    """A command that takes whatever is a key as one, wherever it stands."""

    def make_parser(self, ctx: Context) -> _OptionParser:
        parser = super().make_parser(ctx)
        usual = parser._process_opts  # noqa: SLF001 - there is no public way in

        def process(word: str, state: _ParsingState) -> None:
            if _is_key(word):
                state.largs.append(word)
            else:
                usual(word, state)

        parser._process_opts = process  # type: ignore[assignment, method-assign]  # noqa: SLF001
        return parser


def _is_key(word: str) -> bool:
    from bus.identity import is_key

    named = word.startswith("--") and "=" in word  # --name=…
    return len(word) == LENGTH and not named and is_key(word)
