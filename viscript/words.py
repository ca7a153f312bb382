"""Small questions about words: what was meant, and what is safe to show."""

from __future__ import annotations

import re
from collections.abc import Iterable

# ESC sequences (CSI, OSC, others), then single control characters but tab; C1 controls act like ESC ones.
_CONTROL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_BEYOND_JSON = re.compile(r"[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """`text` of others without what would steer a terminal; newlines and tabs stay."""
    return text if text.isprintable() else _CONTROL.sub("", text)  # mostly it is, and that is quick


def one_line(text: str) -> str:
    """`clean` that also shows line ends and tabs as what they are, so that no text looks like two."""
    if text.isprintable():
        return text
    return clean(text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r"))


def escaped(json: str) -> str:
    """JSON in which no character acts on a terminal: JSON itself escapes only the first 32."""
    return _BEYOND_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", json)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question to append to a message: ; did you mean 'x'? Nothing when nothing is close."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
