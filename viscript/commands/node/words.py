"""How figures of the mesh are shown."""

from __future__ import annotations

from viscript.output import size


def seconds(value: float | None) -> str:
    """A time in the unit that suits it; a dash where it was not measured."""
    if value is None:
        return "-"
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def rate(value: float | None) -> str:
    """Bytes a second; a dash where it was not measured."""
    return "-" if value is None else f"{size(value)}/s"


def amount(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
