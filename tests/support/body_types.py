"""The table of the types of well-known bodies, as the protocol's document has to have it."""

import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from bus import signals

_NAMES = {str: "str", int: "int", float: "float", bool: "bool", bytes: "bin"}


def table(vectors: list[dict[str, Any]]) -> str:
    """A row for each body and each map inside one, in the order of the vectors."""
    seen: dict[type, str] = {}
    for vector in vectors:
        _collect(getattr(signals, vector["type"]), f"`{vector['subject']}` {vector['part']}", seen)
    rows = [f"| {where} | {_fields(kind)} |" for kind, where in seen.items()]
    return "\n".join(["| body | fields: type = default |", "|---|---|", *rows])


def _collect(kind: type, where: str, seen: dict[type, str]) -> None:
    if kind in seen:
        return
    seen[kind] = where
    for inner in _structs(kind):
        _collect(inner, inner.__name__, seen)


def _structs(kind: type) -> Iterator[type]:
    for hint in typing.get_type_hints(kind).values():
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                yield part


def _fields(kind: type) -> str:
    hints = typing.get_type_hints(kind)
    return "; ".join(
        f"`{field.encode_name}`: {_shown(hints[field.name])}"
        + ("" if field.required else f" = {_default(field)}")
        for field in msgspec.structs.fields(kind)
    )


def _default(field: msgspec.structs.FieldInfo) -> str:
    made = field.default_factory
    value = made() if made is not msgspec.NODEFAULT else field.default
    match value:
        case msgspec.Struct():
            return "{}"
        case None:
            return "nil"
        case str():
            return f'"{value}"'
        case float():
            return f"{value:g}"
        case _:
            return str(value).lower()


def _shown(hint: Any) -> str:
    """A Python type as MessagePack has it."""
    if hint in _NAMES:
        return _NAMES[hint]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint.__name__
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join("nil" if a is type(None) else _shown(a) for a in arguments)
    if origin is typing.Literal:
        return " or ".join(f'"{word}"' for word in arguments)
    if origin in {list, tuple}:
        return f"array of {_shown(arguments[0])}"
    if origin is dict:
        return f"map of {_shown(arguments[0])} to {_shown(arguments[1])}"
    raise TypeError(hint)
