"""The file with what people want for the ways between nodes: read at the start, written before it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from bus.identity import is_key
from bus.keystore import write_private
from nodes.api import Wish
from nodes.manager.wishes import MAX_WISHES, Wishes

if TYPE_CHECKING:
    from pathlib import Path

VERSION: Final = 1
MAX_BYTES: Final = 64 << 20


class WishFileError(Exception):
    """The file cannot be used; says which, why and the way out."""


class _File(msgspec.Struct, frozen=True):
    version: int
    wishes: list[Wish]


def load(path: Path) -> Wishes:
    """What is in the file, nothing when there is none; raises WishFileError.

    A damaged one is not taken for an empty one: traffic would go where somebody said that it must not.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Wishes()
    except OSError as error:
        raise WishFileError(f"cannot read {path}: {error.strerror}") from None
    try:
        found = msgspec.json.decode(text, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WishFileError(_damaged(path, str(error))) from None
    if found.version != VERSION:
        raise WishFileError(_damaged(path, f"version {found.version}, not {VERSION}"))
    for wish in found.wishes:
        problem = _problem(wish)
        if problem:
            raise WishFileError(_damaged(path, problem))
    if len(found.wishes) > MAX_WISHES:
        raise WishFileError(_damaged(path, f"more than {MAX_WISHES} wishes"))
    return Wishes(found.wishes)


def save(path: Path, wishes: Wishes) -> None:
    """Write the file whole; from its return on it survives a power cut. Raises WishFileError."""
    text = msgspec.json.encode(_File(VERSION, list(wishes)))
    try:
        write_private(path, msgspec.json.format(text) + b"\n")
    except OSError as error:
        raise WishFileError(f"cannot write {path}: {error.strerror}") from None


def _problem(wish: Wish) -> str:
    path = wish.by_hand
    keys = [wish.a, wish.b, *wish.policy.must, *wish.policy.avoid, *(path or ())]
    if not all(map(is_key, keys)):
        return "a node that is not named by its key"
    if wish.a >= wish.b:
        return "the ends of a pair in the wrong order"
    if path is not None and (path[0], path[-1]) != (wish.a, wish.b):
        return "a route by hand that does not lead from end to end"
    return "a route by hand that passes a node twice" if path and len({*path}) < len(path) else ""


def _damaged(path: Path, problem: str) -> str:
    return (
        f"{path} is damaged ({problem}): put a copy back, or remove it; "
        "without it all pairs of nodes have the default policy"
    )
