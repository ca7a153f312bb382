"""What a check finds. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

Level = Literal["ok", "warning", "broken"]
EXIT_CODES: dict[Level, int] = {"ok": 0, "warning": 1, "broken": 2}


class Finding(Struct, frozen=True):
    """One check's result; `todo` is empty where nothing is to be done."""

    check: str
    level: Level
    text: str
    where: str = ""
    todo: str = ""


def well(check: str, text: str, where: str = "") -> Finding:
    return Finding(check, "ok", text, where)


def warning(check: str, text: str, where: str, todo: str) -> Finding:
    """It works, but not for long or not as it should."""
    return Finding(check, "warning", text, where, todo)


def broken(check: str, text: str, where: str, todo: str) -> Finding:
    """Something cannot work like this."""
    return Finding(check, "broken", text, where, todo)


def exit_code(findings: Sequence[Finding]) -> int:
    """That of the worst."""
    return max((EXIT_CODES[finding.level] for finding in findings), default=0)
