"""Command lines of programs that take keys."""

import argparse
import sys
from collections.abc import Sequence

from bus.identity import KEY_TEXT, is_key


class ArgumentParser(argparse.ArgumentParser):
    """As the standard one, but `--option KEY` also works for a key that begins with a hyphen.

    One key of 85 does (Z85 has it as a digit), and argparse takes it for an option.
    """

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        given = sys.argv[1:] if args is None else args
        return super().parse_known_args(_joined(given), namespace)


def _joined(arguments: Sequence[str]) -> list[str]:
    """The same with what begins with a key in one word with the option before it."""
    found: list[str] = []
    for argument in arguments:
        is_value = argument.startswith("-") and is_key(argument[:KEY_TEXT])
        if is_value and found and found[-1].startswith("--") and "=" not in found[-1]:
            found[-1] += f"={argument}"
        else:
            found.append(argument)
    return found
