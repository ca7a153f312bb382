"""Whom an app serves, as command lines say it: nodes by their keys, or everybody."""

import argparse
from collections.abc import Collection
from typing import Final

from bus.identity import is_key

EVERYBODY: Final = "everybody"


def key_or_everybody(text: str) -> str:
    """Read one word of a list; raises argparse.ArgumentTypeError."""
    if text != EVERYBODY and not is_key(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the key of a node, nor {EVERYBODY}")
    return text


def allowed(said: Collection[str]) -> list[str] | None:
    """The keys that a node shall let in; None for all."""
    return None if EVERYBODY in said else list(said)
