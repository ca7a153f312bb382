"""Logging for daemons: one event a line, for people or as JSON, to standard error."""

from __future__ import annotations

import json
import logging
import sys
from typing import Literal

Format = Literal["lines", "json"]


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z")
        fields = getattr(record, "fields", {})
        tail = "".join(f" {name}={value}" for name, value in fields.items())
        line = f"{moment} {record.levelname.lower()} {record.name}: {record.getMessage()}{tail}"
        return line + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure(style: Format = "lines", level: int = logging.INFO) -> None:
    """Send every logger's events to standard error in `style`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Lines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def event(logger: logging.Logger, what: str, **fields: object) -> None:
    """Log one event with its fields."""
    logger.info(what, extra={"fields": fields})
