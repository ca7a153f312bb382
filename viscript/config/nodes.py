"""Reading YAML nodes, which know their places: each complaint says file:line:column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import yaml

from viscript.errors import BadConfig
from viscript.words import did_you_mean

MAX_PROBLEMS = 100  # that are told of one file
MAX_NODES = 100_000  # with aliases expanded
_PLAIN = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "timestamp", "value")
)

T = TypeVar("T")
Read = Callable[[yaml.Node, str], T]  # a node, and what it is called in complaints


class BadFile(BadConfig):
    """`problems` are all complaints, `str` is about the first."""

    def __init__(self, *problems: str) -> None:
        more = len(problems) - 1
        tail = f" (and {more} more: viscript config check)" if more > 0 else ""
        super().__init__(f"{problems[0]}{tail}")
        self.problems = problems


class TooMuch(BadConfig):
    """It is not worth reading on."""


class Reader:
    """Takes what is asked for out of the nodes of one file, or raises `BadConfig`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._nodes = 0
        self.places: dict[str, str] = {}  # file:line of each key that has a value, by its full name

    def mapping(
        self,
        node: yaml.Node,
        where: str,
        known: tuple[str, ...] | None = None,
        problems: list[str] | None = None,
    ) -> dict[str, yaml.Node]:
        """Keys and values; all keys must be in `known`. Without `known`, nothing is an empty mapping.

        With `problems`, keys that cannot be are told there and left out.
        """
        if is_null(node) and known is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise self.bad(node, f"{where}: must be a mapping (key: value), not {kind(node)}")
        found: dict[str, yaml.Node] = {}
        places: dict[str, yaml.Node] = {}
        for key, value in node.value:
            self._count()
            try:
                name = self._key(key, where, known, places)
            except BadConfig as error:
                if problems is None or len(problems) >= MAX_PROBLEMS:
                    raise
                problems.append(str(error))
                continue
            found[name], places[name] = value, key
            if not is_null(value):
                self.places[f"{where}.{name}"] = self.place(key)
        return found

    def _key(
        self,
        key: yaml.Node,
        where: str,
        known: tuple[str, ...] | None,
        places: Mapping[str, yaml.Node],
    ) -> str:
        if not isinstance(key, yaml.ScalarNode):
            raise self.bad(key, f"{where}: a key must be a word, not {kind(key)}")
        name: str = key.value
        if key.tag == "tag:yaml.org,2002:merge":
            raise self.bad(key, f"{where}: merging with '<<' is not supported; write the keys out")
        if known is not None and name not in known:
            raise self.bad(key, f"{where}: unknown key {name!r}{did_you_mean(name, known)}")
        if name in places:
            line = places[name].start_mark.line + 1
            raise self.bad(key, f"{where}: duplicate key {name!r}, first in line {line}")
        return name

    def text(self, node: yaml.Node, where: str) -> str:
        """A scalar exactly as it is written: 08, yes and 1e3 stay what the user typed."""
        self._count()
        if not isinstance(node, yaml.ScalarNode) or is_null(node):
            raise self.bad(node, f"{where}: must be text, not {kind(node)}")
        if node.tag not in _PLAIN:
            raise self.bad(node, f"{where}: the tag {node.tag!r} means nothing here")
        value: str = node.value
        if "\0" in value:
            raise self.bad(node, f"{where}: holds a NUL character, which no program can be given")
        return value

    def items(self, node: yaml.Node, where: str) -> Iterator[tuple[yaml.Node, str]]:
        """The items of a list, and what they are called."""
        if not isinstance(node, yaml.SequenceNode):
            raise self.bad(node, f"{where}: must be a list, not {kind(node)}")
        for number, item in enumerate(node.value):
            yield item, f"{where}[{number}]"

    def texts(self, node: yaml.Node, where: str) -> tuple[str, ...]:
        return self.many(self.text)(node, where)

    def many(self, read: Read[T]) -> Read[tuple[T, ...]]:
        """A list of what `read` takes."""
        return lambda node, where: tuple(read(item, name) for item, name in self.items(node, where))

    def boolean(self, node: yaml.Node, where: str) -> bool:
        value = node.value if isinstance(node, yaml.ScalarNode) else None
        if node.tag != "tag:yaml.org,2002:bool" or not isinstance(value, str):
            raise self.bad(node, f"{where}: must be true or false, not {kind(node)}")
        word = value.lower()
        if word not in {"true", "yes", "on", "false", "no", "off"}:  # !!bool of something else
            raise self.bad(node, f"{where}: must be true or false, not {value!r}")
        return word in {"true", "yes", "on"}

    def one_of(self, *words: str) -> Read[str]:
        def read(node: yaml.Node, where: str) -> str:
            word = self.text(node, where)
            if word not in words:
                meant = did_you_mean(word, words)
                raise self.bad(node, f"{where}: {word!r} is not one of {', '.join(words)}{meant}")
            return word

        return read

    def value(self, convert: Callable[[str], T]) -> Read[T]:
        """A scalar that `convert` makes a value of, or refuses with `ValueError`."""

        def read(node: yaml.Node, where: str) -> T:
            text = self.text(node, where)
            try:
                return convert(text)
            except ValueError as error:
                raise self.bad(node, f"{where}: {error}") from None

        return read

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise TooMuch(f"{self._file}: more than {MAX_NODES} values; are aliases nested?")

    def place(self, node: yaml.Node) -> str:
        return f"{self._file}:{node.start_mark.line + 1}"

    def bad(self, node: yaml.Node, problem: str) -> BadConfig:
        return BadConfig(f"{self.place(node)}:{node.start_mark.column + 1}: {problem}")


class Fields:
    """The keys of one mapping. A key without a value counts as not written.

    With `problems`, what is wrong with a key that may be missing is told there, and it counts as not written.
    """

    def __init__(
        self,
        reader: Reader,
        node: yaml.Node,
        where: str,
        known: tuple[str, ...],
        problems: list[str] | None = None,
    ) -> None:
        self.node = node
        self._reader = reader
        self._where = where
        self._problems = problems
        found = reader.mapping(node, where, known, problems)
        self._found = {key: value for key, value in found.items() if not is_null(value)}

    def get(self, key: str, read: Read[T], default: T) -> T:
        found = self._found.get(key)
        if found is None:
            return default
        try:
            return read(found, f"{self._where}.{key}")
        except TooMuch:
            raise
        except BadConfig as error:
            if self._problems is None:
                raise
            self._problems.append(str(error))
            return default

    def many(self, key: str, read: Read[T]) -> tuple[T, ...]:
        """A list of what `read` takes; empty when it is not written."""
        return self.get(key, self._reader.many(read), ())

    def need(self, key: str, read: Read[T]) -> T:
        if key not in self._found:
            raise self._reader.bad(self.node, f"{self._where}: the key {key!r} is missing")
        return read(self._found[key], f"{self._where}.{key}")

    def bad(self, key: str, problem: str) -> BadConfig:
        """A complaint about the value of `key`."""
        return self._reader.bad(self._found.get(key, self.node), f"{self._where}.{key}: {problem}")

    def __contains__(self, key: str) -> bool:
        return key in self._found

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._found)

    def place(self, key: str) -> str:
        """file:line of the value of `key`."""
        return self._reader.place(self._found[key])


def keys(node: yaml.Node) -> list[tuple[str, yaml.Node]]:
    return [(k.value, k) for k, _ in node.value] if isinstance(node, yaml.MappingNode) else []


def is_null(node: yaml.Node) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null")


def kind(node: yaml.Node) -> str:
    match node:
        case yaml.MappingNode():
            return "a mapping"
        case yaml.SequenceNode():
            return "a list"
        case _ if is_null(node):
            return "nothing"
        case _:
            return f"{node.value!r}"
