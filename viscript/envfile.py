"""Files of environment variables: `NAME=value` lines, as shells and containers read them.

Blank lines and lines that start with # are skipped; `export ` before a name is allowed. A value ends with its
line. In single quotes it is taken as it is; in double quotes a backslash makes n, t and r what they usually
are and takes other characters as they are. Nothing is expanded and nothing is run.
"""

from __future__ import annotations

import re
from pathlib import Path

from viscript import plainfile
from viscript.config.parts import bad_variable
from viscript.errors import BadConfig

MAX_BYTES = 1 << 20
_LINE = re.compile(r"(?:export[ \t]+)?([^=\s]+)=[ \t]*(.*?)[ \t]*", re.DOTALL)
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"(?:[ \t]+#.*)?')
_SINGLE = re.compile(r"'([^']*)'(?:[ \t]+#.*)?")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


def load(file: Path) -> dict[str, str]:
    """The variables of `file`; `BadConfig` says where and what, but never shows a value."""
    try:
        data = plainfile.read(file, MAX_BYTES + 1)
    except OSError as error:
        raise BadConfig(f"{file}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise BadConfig(f"{file}: larger than {MAX_BYTES >> 20} MiB, which no environment is")
    try:
        return parse(data.decode(), file)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadConfig(f"{file}:{line}: not UTF-8 text: {error.reason}") from None


def parse(text: str, file: Path) -> dict[str, str]:
    """`load` of a text that is here already; a name that comes twice has its last value."""
    found = {}
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            name, value = _variable(stripped)
        except ValueError as error:
            raise BadConfig(f"{file}:{number}: {error}") from None
        found[name] = value
    return found


def _variable(line: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("not NAME=value; comments start with #")
    name, value = match[1], match[2]
    if (why := bad_variable(name)) is not None:
        raise ValueError(f"{name!r} {why}")
    if "\0" in value:
        raise ValueError(f"{name}: holds a NUL character, which no program can be given")
    return name, _unquoted(name, value)


def _unquoted(name: str, value: str) -> str:
    quote = value[:1]
    if quote not in {"'", '"'}:
        return value
    match = (_DOUBLE if quote == '"' else _SINGLE).fullmatch(value)
    if match is None:
        raise ValueError(f"{name}: the quote {quote} is not closed, or something follows it")
    if quote == "'":
        return match[1]
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), match[1])
