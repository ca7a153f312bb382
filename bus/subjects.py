"""Subjects and patterns: their grammar, what matches what, and the tree that finds matches.

A subject is 1 to 16 tokens of ``[A-Za-z0-9_$-]`` joined by dots, at most 255 characters.
In a pattern a token may be ``*`` (any one token) and the last may be ``>`` (one or more tokens).
Matching is by whole tokens, so ``app.web`` never reaches a subscriber of ``app.webcam``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic, TypeVar

MAX_LENGTH = 255
MAX_TOKENS = 16

_TOKEN = r"[A-Za-z0-9_$-]+"
_SUBJECT = re.compile(rf"{_TOKEN}(?:\.{_TOKEN})*")
_PATTERN = re.compile(rf"(?:(?:{_TOKEN}|\*)\.)*(?:{_TOKEN}|\*|>)")

T = TypeVar("T")


def is_subject(text: str) -> bool:
    """Whether `text` names exactly one subject."""
    return (
        len(text) <= MAX_LENGTH
        and text.count(".") < MAX_TOKENS
        and _SUBJECT.fullmatch(text) is not None
    )


def is_pattern(text: str) -> bool:
    """Whether `text` may be subscribed to; every subject is also a pattern."""
    return (
        len(text) <= MAX_LENGTH
        and text.count(".") < MAX_TOKENS
        and _PATTERN.fullmatch(text) is not None
    )


def covers(wide: str, narrow: str) -> bool:
    """Whether every subject that `narrow` matches is matched by `wide` as well."""
    wide_tokens, narrow_tokens = wide.split("."), narrow.split(".")
    for index, token in enumerate(wide_tokens):
        if index == len(narrow_tokens):
            return False
        if token == ">":
            return True
        other = narrow_tokens[index]
        if other == ">" or token not in {"*", other}:
            return False
    return len(wide_tokens) == len(narrow_tokens)


def overlaps(one: str, other: str) -> bool:
    """Whether some subject is matched by both patterns."""
    tokens, others = one.split("."), other.split(".")
    for a, b in zip(tokens, others, strict=False):
        if ">" in {a, b}:
            return True
        if a != b and "*" not in {a, b}:
            return False
    return len(tokens) == len(others)


class _Branch(Generic[T]):
    __slots__ = ("branches", "here", "rest")

    def __init__(self) -> None:
        self.branches: dict[str, _Branch[T]] = {}
        # Dictionaries for their keys: one of many thousands is taken out in no time.
        self.here: dict[T, None] = {}  # patterns that end at this token
        self.rest: dict[T, None] = {}  # patterns that end here with ">"

    @property
    def empty(self) -> bool:
        return not (self.branches or self.here or self.rest)


MAX_REMEMBERED = 1024  # subjects whose matches a tree keeps


class SubjectTree(Generic[T]):
    """Patterns with values, under each pattern any value once; `match` returns those that match a subject.

    Matches are remembered until a pattern comes or goes: traffic repeats its subjects. `accepts` may rule
    out a match; it is asked once for what is remembered, so its answer must hold until `forget`.
    """

    def __init__(self, accepts: Callable[[T, str], bool] | None = None) -> None:
        self._root: _Branch[T] = _Branch()
        self._remembered: dict[str, list[T]] = {}
        self._accepts = accepts

    def forget(self) -> None:
        """Ask `accepts` anew from now on."""
        self._remembered.clear()

    def add(self, pattern: str, value: T) -> None:
        self._remembered.clear()
        tokens = pattern.split(".")
        branch = self._root
        for token in tokens if tokens[-1] != ">" else tokens[:-1]:
            branch = branch.branches.setdefault(token, _Branch())
        (branch.rest if tokens[-1] == ">" else branch.here)[value] = None

    def remove(self, pattern: str, value: T) -> None:
        """Take out what `add` put in; empty branches go with it."""
        self._remembered.clear()
        tokens = pattern.split(".")
        path = [self._root]
        steps = tokens if tokens[-1] != ">" else tokens[:-1]
        for token in steps:
            path.append(path[-1].branches[token])
        del (path[-1].rest if tokens[-1] == ">" else path[-1].here)[value]
        for parent, token, child in zip(
            reversed(path[:-1]), reversed(steps), reversed(path[1:]), strict=True
        ):
            if child.empty:
                del parent.branches[token]

    def match(self, subject: str) -> list[T]:
        """The values, in no particular order; the list is not the caller's to change."""
        found = self._remembered.get(subject)
        if found is None:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            found = self._search(subject)
            if self._accepts is not None:
                found = [value for value in found if self._accepts(value, subject)]
            self._remembered[subject] = found
        return found

    def _search(self, subject: str) -> list[T]:
        found: list[T] = []
        branches = [self._root]
        for token in subject.split("."):
            following = []
            for branch in branches:
                found += branch.rest
                following += [b for name in (token, "*") if (b := branch.branches.get(name))]
            branches = following
        for branch in branches:
            found += branch.here
        return found
