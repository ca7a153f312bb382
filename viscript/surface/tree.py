"""The commands with all their options, as typer knows them, written where completion finds them."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer._click import Context

from viscript.completion import stored
from viscript.surface import group, registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typer._click import Command

# By what stands in the help for an option's value or an argument.
_KINDS = {
    "FILE": "file", "DIR": "folder", "SIGNAL": "signal", "SELECTOR": "select", "APP": "app",
    "NAME|CONTEXT": "context", "CONTEXT": "context", "HOST": "host", "JOB": "job", "ROLE": "role",
    "NODE": "node", "KEY|NODE": "node",
}  # fmt: skip


# Options that stand before a command.
EVERYWHERE = {
    "--home": {"help": "Which instance; else $VISCRIPT_HOME.", "value": "folder"},
    "--json": {"help": "One JSON document instead of text.", "value": ""},
    "--version": {"help": "Which viscript this is.", "value": ""},
    "--help": {"help": "Show the help.", "value": ""},
}


_NAMED = {"--context": "context"}


def build() -> dict[str, Any]:
    """The whole tree; imports every command."""
    known = registry.tree()["subs"]
    subs: dict[str, Any] = {}
    for entry in registry.entries():
        node = _node(group.build(entry, entry.name), known[entry.name])
        subs |= {name: {**node, "help": entry.help} for name in (entry.name, *entry.short)}
    return {"options": EVERYWHERE, "subs": subs}


def _node(command: Command, known: Mapping[str, Any]) -> dict[str, Any]:
    """A command and those below it. What the registry knows of its arguments comes first."""
    options: dict[str, Any] = {}
    kinds: list[str] = []
    for parameter in command.get_params(Context(command)):
        if parameter.param_type_name == "argument":
            kinds.append(_kind(parameter.metavar or parameter.name or "", argument=True))
            continue
        names = [*parameter.opts, *parameter.secondary_opts]
        if getattr(parameter, "hidden", False) or not names:
            continue
        flag = getattr(parameter, "is_flag", False) or getattr(parameter, "count", False)
        kind = _NAMED.get(names[0]) or _kind(_metavar(parameter), argument=False)
        value = "" if flag else kind or "text"
        names = [name for name in names if name.startswith("-")]
        shown = {"help": getattr(parameter, "help", None) or "", "value": value}
        options |= dict.fromkeys(names, shown)
    options["--help"] = EVERYWHERE["--help"]
    node = {
        "help": (command.get_short_help_str(100) or ""), "options": options,
        "kinds": _kinds(kinds, known.get("kinds") or ()), "many": known.get("many", False),
        "verbatim": known.get("verbatim", False),
    }  # fmt: skip
    below = _below(command)
    if below:
        node["subs"] = {name: _node(sub, _inherited(known, name)) for name, sub in below.items()}
    return node


def _below(command: Command) -> dict[str, Command]:
    """The commands of a group, also of one that makes them when they are asked for."""
    from typer.core import TyperGroup

    if not isinstance(command, TyperGroup):
        return {}
    context = Context(command)
    found = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return {name: sub for name, sub in found.items() if sub is not None and not sub.hidden}


def _kinds(own: Sequence[str], known: Sequence[str]) -> list[str]:
    """One for each argument there is: what its name says, else what the registry does."""
    return [
        known[at] if kind == "text" and at < len(known) else kind for at, kind in enumerate(own)
    ]


def _metavar(parameter: Any) -> str:  # noqa: ANN401 - options of typer, whatever they are
    choices = getattr(parameter.type, "choices", None)
    return "|".join(map(str, choices)) if choices else str(parameter.metavar or "")


def _inherited(known: Mapping[str, Any], verb: str) -> Mapping[str, Any]:
    """Of a verb below a group: its arguments are those of the group unless they say better themselves."""
    found: Mapping[str, Any] = (known.get("subs") or {}).get(verb, {})
    return {"kinds": found.get("kinds"), "many": found.get("many", False)}


def _kind(metavar: str, *, argument: bool) -> str:
    plain = metavar.strip("[].")
    if plain in _KINDS:
        return _KINDS[plain]
    words = plain.split("|")
    if len(words) > 1 and all(word.islower() and word.isalpha() for word in words):
        return plain
    return "text" if argument else ""


def write(environment: Mapping[str, str]) -> str | None:
    """Write it to the user's cache. Where that cannot be, completion knows no options; then the reason."""
    file = Path(stored.tree_file(environment))
    text = json.dumps({"stamp": stored.stamp(), "tree": build()}, separators=(",", ":"))
    temporary = ""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(fd, "w") as written:
            written.write(text)
        os.replace(temporary, file)  # noqa: PTH105
    except OSError as error:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
        return f"{file}: {error.strerror or error}"
    return None


def main(_arguments: Sequence[str] = ()) -> None:
    write(os.environ)


if __name__ == "__main__":
    main()
