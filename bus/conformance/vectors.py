"""The golden vectors: in the wheel beside this file, in a checkout among the tests."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

_NAME = "sb1.json"


@cache
def load() -> dict[str, Any]:
    """The vectors; `FileNotFoundError` when they were not shipped."""
    shipped = resources.files("bus.conformance").joinpath(_NAME)
    if shipped.is_file():
        text = shipped.read_text(encoding="utf-8")
    else:
        text = (Path(__file__).parents[2] / "tests" / "vectors" / _NAME).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@cache
def codes(direction: str) -> dict[str, int]:
    """Code of each command of `direction`, client or broker, by its name."""
    commands = load()["commands"]
    return {v["name"].split()[0]: v["code"] for v in commands if v["direction"] == direction}
