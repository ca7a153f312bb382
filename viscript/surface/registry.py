"""All commands: the one table that command line, shell and completion share. Imports nothing of them.

One block for each theme, so that two people add commands without touching each other's lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["view", "operate", "configure", "admin"]

# What may stand in the place of an argument; completion offers these.
Kind = Literal[
    "app",  # a name in the configuration
    "launch",  # an id, or an app that runs once
    "select",  # a selector: ids, names, globs, @groups, host:app, state=…
    "job", "host", "key", "role", "signal", "file", "command", "node",
    "text",  # nothing can be offered
]  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One command.

    `kinds` are those of its arguments in order; with `many` the last stands for all that follow. `role` is
    what a key needs at the daemon, None if it needs none: the daemon's own table decides
    (`viscript.commands.served`), this one explains.
    """

    name: str
    where: str  # module:function, or module:app for a group of verbs; imported when it is typed
    help: str  # one sentence
    role: Role | None = None
    short: tuple[str, ...] = ()  # shown in the help
    others: tuple[str, ...] = ()  # understood too
    kinds: tuple[Kind, ...] = ()
    many: bool = False
    verbatim: bool = False  # what follows the first argument is the app's, not ours
    verbs: tuple[str, ...] = ()  # of a group

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.short, *self.others)


@dataclass(frozen=True)
class Theme:
    title: str
    entries: tuple[Entry, ...]


_S = "viscript.surface."


def _on_launches(
    name: str, where: str, help_: str, role: Role | None = None,
    short: tuple[str, ...] = (), others: tuple[str, ...] = (),
) -> Entry:  # fmt: skip
    """A command that takes selectors."""
    return Entry(name, where, help_, role, short, others, kinds=("select",), many=True)


THEMES: tuple[Theme, ...] = (
    Theme(
        "Everything together",
        (
            Entry("up", f"{_S}whole:up", "Start daemon, broker and the apps marked autostart."),
            Entry("down", f"{_S}whole:down", "End everything: apps, broker, daemon.", "admin"),
        ),
    ),
    Theme(
        "Doing",
        (
            Entry(
                "start", f"{_S}doing:start", "Start an app; what follows APP goes to it.", "operate",
                ("s",), kinds=("app",), verbatim=True,
            ),
            _on_launches(
                "sd", f"{_S}doing:sd", "Shut down, and wait for the end.", "operate",
                others=("shutdown",),
            ),
            _on_launches(
                "restart", f"{_S}doing:restart", "End and start again, with the same id.", "operate",
            ),
            _on_launches(
                "reload", f"{_S}doing:reload", "Tell to read its configuration again.", "operate",
            ),
            _on_launches(
                "kill", f"{_S}doing:kill", "Send a signal to all processes of an app.", "operate",
            ),
            Entry(
                "scale", f"{_S}doing:scale", "Run so many instances of an app.", "operate",
                kinds=("app", "text"),
            ),
            Entry(
                "run", f"{_S}doing:run", "Run a command as an app; ends with its exit code.", "admin",
                kinds=("command",), verbatim=True,
            ),
            _on_launches(
                "wait", f"{_S}doing:wait", "Wait until apps are ready, or have ended.", "view",
            ),
            Entry(
                "job", f"{_S}jobs:app", "What was asked for, and what has become of it.", "view",
                verbs=("ls", "show", "cancel"), kinds=("job",),
            ),
        ),
    ),
    Theme(
        "Seeing",
        (
            _on_launches(
                "list", f"{_S}seeing:list_", "What runs, and what has ended last.", "view", ("la",),
            ),
            _on_launches(
                "status", f"{_S}seeing:status", "Daemon and broker, or an app in full.", "view",
            ),
            _on_launches(
                "top", f"{_S}seeing:top", "A live table of what everything uses.", "view",
            ),
            _on_launches(
                "ru", f"{_S}seeing:ru", "Resource usage: CPU, memory, threads, files, bus bytes.",
                "view", others=("res_usage",),
            ),
            _on_launches(
                "ping", f"{_S}seeing:ping", "Do keeper, event loop and probe answer, how fast?",
                "view",
            ),
            _on_launches(
                "events", f"{_S}seeing:events", "What happens; with -f as it happens.", "view",
            ),
            _on_launches(
                "history", f"{_S}seeing:history", "What happened to an app until now.", "view",
            ),
            _on_launches(
                "why", f"{_S}seeing:why", "What an app waits for, or why it failed.", "view",
            ),
        ),
    ),
    Theme(
        "Logs and terminals",
        (
            Entry(
                "attach", f"{_S}terminals:attach", "Use the terminal of an app; one types, others look.",
                "operate", kinds=("launch",),
            ),
            Entry(
                "send", f"{_S}terminals:send", "Type into the terminal of an app.", "operate",
                kinds=("launch", "text"), many=True,
            ),
            _on_launches(
                "logs", f"{_S}logs:logs", "Show what apps printed.",
            ),
        ),
    ),
    Theme(
        "Configuration",
        (
            Entry("apps", f"{_S}catalog:apps", "List the apps that can be started."),
            Entry("help", f"{_S}catalog:help_", "Explain an app, or the commands.", kinds=("app",)),
            Entry(
                "show", f"{_S}configuration:show", "An app's values, and where each comes from.",
                kinds=("app",),
            ),
            Entry(
                "config", f"{_S}configuration:config", "Check, plan and apply the configuration.",
                "configure",
                verbs=("check", "plan", "apply", "show", "schema"),
            ),
        ),
    ),
    Theme(
        "Many hosts",
        (
            Entry(
                "host", f"{_S}hosts:app", "Which hosts belong to this cluster.", "view", kinds=("host",),
                verbs=("invite", "ls", "accept", "reject", "revoke", "rm"),
            ),
            Entry("join", f"{_S}hosts:join", "Make this a host of another's cluster.", kinds=("text",)),
            Entry("leave", f"{_S}hosts:leave", "Stop being one."),
        ),
    ),
    Theme(
        "The mesh",
        (
            Entry("find", f"{_S}offers:find", "What apps offer in the mesh.", kinds=("text",)),
            Entry(
                "socks", f"{_S}socks:app", "What the exits of the SOCKS pair do.", kinds=("node",),
                verbs=("status",),
            ),
            Entry(
                "node", f"{_S}nodes:app", "See through the mesh: nodes, links, routes; measure, choose.",
                kinds=("node",),
                verbs=(
                    "ls", "show", "peers", "routes", "sessions", "streams", "ping", "trace", "speed", "why",
                    "map", "events", "metrics", "name", "route",
                ),
            ),
        ),
    ),
    Theme(
        "This machine's traffic",
        (
            Entry(
                "vpn", f"{_S}vpn:app", "All of it through an exit of the mesh, and nothing beside it.",
                "operate", kinds=("node",), many=True, verbs=("on", "off", "status", "doctor", "exits"),
            ),
        ),
    ),
    Theme(
        "Who may what",
        (
            Entry(
                "role", f"{_S}rights:app", "Which other keys may do what on this host.", "admin",
                verbs=("ls", "set", "rm"), kinds=("key", "role"),
            ),
            Entry("audit", f"{_S}rights:audit", "Who asked this host for what.", "admin"),
        ),
    ),
    Theme(
        "This installation",
        (
            Entry(
                "daemon", f"{_S}daemon:app", "Restart or end the daemon alone; apps go on.", "admin",
                verbs=("restart", "stop", "status", "logs"),
            ),
            Entry("bus", "viscript.commands.bus:app", "The message bus by hand."),
            Entry("doctor", f"{_S}system:doctor", "What is wrong with this installation, what to do."),
            Entry(
                "completion", f"{_S}system:completion", "Completion for bash, zsh and fish.",
                verbs=("bash", "zsh", "fish", "install"),
            ),
        ),
    ),
)  # fmt: skip


def entries() -> Iterator[Entry]:
    """All, in the order of the help."""
    for theme in THEMES:
        yield from theme.entries


def find(word: str) -> Entry | None:
    """The command called `word`, by any of its names."""
    return next((entry for entry in entries() if word in entry.names), None)


def tree() -> dict[str, Any]:
    """The commands as completion knows them until somebody has looked for their options."""
    found: dict[str, Any] = {}
    for entry in entries():
        subs = {verb: {"kinds": entry.kinds, "many": entry.many} for verb in entry.verbs}
        for name in (entry.name, *entry.short):
            found[name] = {
                "help": entry.help, "kinds": entry.kinds, "many": entry.many,
                "verbatim": entry.verbatim, "subs": subs,
            }  # fmt: skip
    return {"subs": found}


VERBATIM = frozenset(name for entry in entries() if entry.verbatim for name in entry.names)
