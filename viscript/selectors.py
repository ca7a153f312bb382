"""Which launches or apps are meant: `web*`, `@group`, `host:app`, `17`, `state=failed`, and, or, not, ( ).

Pure. Words that stand beside each other are joined by `or`, so that `sd 1 2 web*` means all of them; `and`
binds closer than `or`, `not` closest. What is too long, too deep or cannot be meant is `BadUsage`, which says
where.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import ClassVar, Protocol, TypeVar

from msgspec import Struct

from viscript.errors import BadUsage

MAX_TEXT = 4096  # characters
MAX_DEPTH = 32
FIELDS = ("app", "group", "host", "id", "state", "key", "instance")
_TOKEN = re.compile(r"\s*(?:([()])|([^\s()]+))")
_FIELD = re.compile(rf"({'|'.join(FIELDS)})(!?=)(.+)", re.DOTALL)
_RESERVED = frozenset({"and", "or", "not"})
_GLOB = frozenset("*?[")
NO_ALIASES: Mapping[str, str] = MappingProxyType({})
EXAMPLES = "ids, names, web*, @group, host:app, state=failed, and, or, not, ( )"


class Entry(Protocol):
    """What a selector is asked about; what it has not got is taken as empty."""

    @property
    def app(self) -> str: ...


E = TypeVar("E", bound=Entry)


def _text(entry: Entry, field: str) -> str:
    found = getattr(entry, field, None)
    return "" if found is None else str(found)


class Name(Struct, frozen=True):
    """`[host:]what[:instance]`, where what is an id or a glob of app names.

    `web:0` is the launch or app 0 of a host called web, and instance 0 of an app called web.
    """

    what: str
    host: str = ""
    instance: str = ""

    def matches(self, entry: Entry) -> bool:
        if self._is_instance_of(entry):
            return True
        if self.host and not fnmatchcase(_text(entry, "host"), self.host):
            return False
        if self.instance and not fnmatchcase(_text(entry, "instance"), self.instance):
            return False
        return _text(entry, "id") == self.what or fnmatchcase(entry.app, self.what)

    def _is_instance_of(self, entry: Entry) -> bool:
        two = self.host and not self.instance and self.what.isdecimal()
        same = self.what == _text(entry, "instance")
        return bool(two) and same and fnmatchcase(entry.app, self.host)

    def __str__(self) -> str:
        return ":".join(part for part in (self.host, self.what, self.instance) if part)


class Field(Struct, frozen=True):
    """`field=a,b` or `field!=a,b`: one of the globs matches, or none does."""

    field: str
    globs: tuple[str, ...]
    equal: bool = True

    def matches(self, entry: Entry) -> bool:
        values = [_text(entry, self.field)]
        if self.field == "group":
            values = [str(group) for group in getattr(entry, "groups", None) or ()]
        return any(fnmatchcase(v, g) for v in values for g in self.globs) is self.equal

    def __str__(self) -> str:
        if self.field == "group" and self.equal and len(self.globs) == 1:
            return f"@{self.globs[0]}"
        return f"{self.field}{'=' if self.equal else '!='}{','.join(self.globs)}"


class Not(Struct, frozen=True):
    inner: Selector

    def matches(self, entry: Entry) -> bool:
        return not self.inner.matches(entry)

    def __str__(self) -> str:
        return f"not {_within(self.inner)}"


class _Many(Struct, frozen=True):
    parts: tuple[Selector, ...]
    word: ClassVar[str]

    def __str__(self) -> str:
        return f" {self.word} ".join(_within(part) for part in self.parts)


class And(_Many, frozen=True):
    word = "and"

    def matches(self, entry: Entry) -> bool:
        return all(part.matches(entry) for part in self.parts)


class Or(_Many, frozen=True):
    word = "or"

    def matches(self, entry: Entry) -> bool:
        return any(part.matches(entry) for part in self.parts)


Selector = Name | Field | Not | And | Or


def _within(selector: Selector) -> str:
    return f"({selector})" if isinstance(selector, _Many) else str(selector)


def parse(words: str | Sequence[str], aliases: Mapping[str, str] = NO_ALIASES) -> Selector:
    """What the words of a command line select; `BadUsage` says what cannot be meant.

    `aliases` are other names of apps: such a word means the app. Globs match names alone.
    """
    text = words if isinstance(words, str) else " ".join(words)
    if len(text) > MAX_TEXT:
        raise BadUsage(f"a selector of {len(text)} characters; at most {MAX_TEXT}")
    if not text.strip():
        raise BadUsage(f"nothing is selected; name {EXAMPLES}")
    reader = _Reader(text, aliases)
    found = reader.either(0)
    if reader.word is not None:
        raise reader.wrong("an opening ( is missing")
    return found


def named(selector: Selector) -> list[Name]:
    """The words of `a b c`, each a name without globs; empty when it is anything else.

    What is named must be there; what a glob or a condition matches may be nothing of it.
    """
    parts = selector.parts if isinstance(selector, Or) else (selector,)
    names = [part for part in parts if isinstance(part, Name) and not _GLOB & set(str(part))]
    return names if len(names) == len(parts) else []


def select(selector: Selector, entries: Iterable[E]) -> list[E]:
    return [entry for entry in entries if selector.matches(entry)]


class _Reader:
    """Goes through the tokens once, from left to right."""

    def __init__(self, text: str, aliases: Mapping[str, str]) -> None:
        self._text = text
        self._aliases = aliases
        self._at = 0
        self._next()

    def _next(self) -> None:
        self._from = self._at
        found = _TOKEN.match(self._text, self._at)
        self.word: str | None = None
        if found is not None:
            self.word = found[1] or found[2]
            self._from, self._at = found.start(found.lastindex or 0), found.end()

    def either(self, depth: int) -> Selector:
        parts = [self._both(depth)]
        while self.word not in {None, ")"}:
            if self.word == "or":
                self._next()
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _both(self, depth: int) -> Selector:
        parts = [self._one(depth)]
        while self.word == "and":
            self._next()
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _one(self, depth: int) -> Selector:
        if depth > MAX_DEPTH:
            raise self.wrong(f"nested more than {MAX_DEPTH} deep")
        word = self.word
        if word is None:
            raise self.wrong("something is missing at the end")
        if word == "not":
            self._next()
            return Not(self._one(depth + 1))
        if word == "(":
            self._next()
            inner = self.either(depth + 1)
            if self.word != ")":
                raise self.wrong("a closing ) is missing")
            self._next()
            return inner
        if word == ")" or word in _RESERVED:
            raise self.wrong(f"{word!r} has nothing before it")
        found = self._atom(word)
        self._next()
        return found

    def _atom(self, word: str) -> Selector:
        if field := _FIELD.fullmatch(word):
            globs = tuple(dict.fromkeys(filter(None, field[3].split(","))))
            if not globs:
                raise self.wrong(f"{word!r} has no value")
            return Field(field[1], globs, equal=field[2] == "=")
        if "=" in word:
            raise self.wrong(f"no such field; fields are {', '.join(FIELDS)}")
        if word.startswith("@"):
            if word == "@":
                raise self.wrong("@ is followed by the name of a group")
            return Field("group", (word[1:],))
        return self._name(word)

    def _name(self, word: str) -> Name:
        parts = word.split(":")
        if len(parts) == 1:
            return Name(self._app(word))
        if not all(parts) or len(parts) > 3:
            raise self.wrong("it looks like HOST:APP or HOST:APP:INSTANCE")
        if len(parts) == 3:
            return Name(self._app(parts[1]), parts[0], parts[2])
        if parts[1].isdecimal():  # APP:INSTANCE or HOST:ID
            return Name(parts[1], host=self._app(parts[0]))
        return Name(self._app(parts[1]), host=parts[0])

    def _app(self, word: str) -> str:
        return self._aliases.get(word, word)

    def wrong(self, problem: str) -> BadUsage:
        shown = self._text[self._from : self._from + 40] or "the end"
        return BadUsage(f"selector: {problem}, at {shown!r}; it is made of {EXAMPLES}")
