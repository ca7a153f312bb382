"""How the help of a verb shows its examples."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """An epilogue that stays as it is written."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))
