"""What a line at the prompt says, and what to say about one that is being typed. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from viscript.errors import BadUsage
from viscript.words import did_you_mean

END = ("exit", "quit")
_NAMES = {
    "app": "APP", "launch": "ID|APP", "select": "ID|APP|SELECTOR", "job": "JOB", "host": "HOST",
    "key": "KEY", "role": "ROLE", "signal": "SIGNAL", "file": "FILE", "folder": "DIR",
    "command": "COMMAND",
}  # fmt: skip


def words(line: str) -> list[str]:
    """Of a finished line; `BadUsage` when a quote has no end. `viscript` before a command is not needed."""
    try:
        found = shlex.split(line)
    except ValueError as error:
        raise BadUsage(f"{str(error).lower()}: {line.strip()}") from None
    return found[1:] if found[:1] == ["viscript"] else found


def as_typed(found: Sequence[str]) -> list[str]:
    """As the command line wants it. At the prompt nothing stays in the foreground: `up` is `up --detach`."""
    if found[:1] == ["up"] and not {"-d", "--detach", "-h", "--help"} & set(found):
        return [*found, "--detach"]
    return list(found)


def with_ends(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The commands, and those that only the prompt has."""
    ends = {word: {"help": "Leave the prompt; what runs goes on.", "kinds": ()} for word in END}
    return {"options": {}, "subs": {**tree.get("subs", {}), **ends}}


def hint(typed: Sequence[str], tree: Mapping[str, Any]) -> str:
    """One line about the command that is being typed; `typed` ends with the unfinished word."""
    if len(typed) < 2:
        return _about_the_first(typed[0] if typed else "", tree)
    node, path = tree, list[str]()
    for word in typed[:-1]:
        below = node.get("subs", {}).get(word)
        if below is None:
            break
        node, path = below, [*path, word]
    if not path:
        meant = did_you_mean(typed[0], tree.get("subs", {}))
        return f"no command {typed[0]!r}{meant}"
    return f"{' '.join(path)} {usage(node)}".rstrip() + f" - {node.get('help', '')}"


def _about_the_first(word: str, tree: Mapping[str, Any]) -> str:
    node = tree.get("subs", {}).get(word)
    if node is None:
        return "Tab completes, help explains, exit or Ctrl-D leaves"
    return f"{word} {usage(node)}".rstrip() + f" - {node.get('help', '')}"


def usage(node: Mapping[str, Any]) -> str:
    """Its arguments, as the help writes them."""
    if node.get("subs"):
        return "|".join(node["subs"])
    names = [_NAMES.get(kind, "...") for kind in node.get("kinds", ())]
    return " ".join(names) + ("..." if node.get("many") and names else "")


def summary(snapshot: Mapping[str, Any]) -> str:
    """How many launches are in which state, as the daemon wrote it down last."""
    count: dict[str, int] = {}
    found = snapshot.get("launches", ())
    for launch in found if isinstance(found, list) else ():
        state = str(launch.get("state", "")) if isinstance(launch, dict) else ""
        if state.isalpha():
            count[state] = count.get(state, 0) + 1
    return ", ".join(f"{number} {state}" for state, number in sorted(count.items()))
