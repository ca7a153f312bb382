"""Reading one entry of `apps:`."""

from __future__ import annotations

import re
from typing import cast

import yaml

from viscript.config import values
from viscript.config.model import App, Role
from viscript.config.nodes import BadFile, Fields, Reader, TooMuch
from viscript.config.parts import Parts
from viscript.errors import BadConfig
from viscript.rules import LOGGED, NO_PROBE, NO_RESTART, STOP, Probe

KEYS = (
    "daemon", "desc", "path", "default_args", "help", "autostart", "args", "env", "env_file", "cwd",
    "instances", "restart", "after", "ready", "alive", "stop", "reload", "role", "short", "groups",
    "limits", "nice", "user", "group", "umask", "terminal", "log",
)  # fmt: skip
ROLES = ("app", "node", "manager", "tracker", "observer")
MAX_INSTANCES = 1000


_PLACE = re.compile(r":([0-9]+):([0-9]+): ")


def _position(problem: str) -> tuple[int, int]:
    """Line and column of a complaint, to tell them in the order of the file."""
    found = _PLACE.search(problem)
    return (int(found[1]), int(found[2])) if found else (0, 0)


class Entry:
    """An app, and the nodes of the names that can only be looked up when all entries are read.

    `BadFile` has all that is wrong with it.
    """

    def __init__(self, reader: Reader, name: str, node: yaml.Node, key: yaml.Node) -> None:
        self.node = node
        reader.places = {}
        problems: list[str] = []
        try:
            self._read_all(reader, name, key, problems)
        except TooMuch:
            raise
        except BadConfig as error:
            problems.append(str(error))
        if problems:
            raise BadFile(*sorted(set(problems), key=_position))

    def _read_all(self, reader: Reader, name: str, key: yaml.Node, problems: list[str]) -> None:
        if not values.NAME.fullmatch(name):
            raise reader.bad(
                key, f"app name {name!r}: a letter, then letters, digits and '_.-', at most 64"
            )
        self._fields = Fields(reader, self.node, f"apps.{name}", KEYS, problems)
        if "path" not in self._fields and not problems:  # else its key may be misspelt
            problems.append(str(reader.bad(self.node, f"apps.{name}: the key 'path' is missing")))
        self._after = self._fields.many("after", Parts(reader).after)
        self.after = tuple(place for _, place in self._after)
        self.short = self._fields.many("short", lambda item, _: item)
        self.app = self._read(reader, name)
        if not problems and self.app.autostart and self.app.instances == 0:
            raise self._fields.bad("autostart", "there is nothing to start (instances: 0)")

    def _read(self, reader: Reader, name: str) -> App:
        parts, get, value = Parts(reader), self._fields.get, reader.value
        prefix = f"apps.{name}."
        names = reader.many(value(values.name))
        path = get("path", value(values.some_text), "")
        # As one of ours it is a bus participant, unless the file says that it is none.
        usual = Probe("bus") if path.startswith("python:") else NO_PROBE
        return App(
            name, path, reader.place(self.node) if not path else self._fields.place("path"),
            desc=get("desc", reader.text, ""),
            help=get("help", reader.text, ""),
            daemon=get("daemon", reader.boolean, False),
            default_args=get("default_args", reader.texts, ()),
            args=get("args", reader.texts, ()),
            env=get("env", parts.environment, {}),
            env_file=get("env_file", reader.many(value(values.some_text)), ()),
            cwd=get("cwd", reader.text, "") or None,
            autostart=get("autostart", reader.boolean, False),
            instances=get("instances", value(values.whole(0, MAX_INSTANCES)), 1),
            restart=get("restart", parts.restart, NO_RESTART),
            after=tuple(after for after, _ in self._after),
            ready=get("ready", parts.ready, usual),
            alive=get("alive", parts.alive, None),
            stop=get("stop", parts.stop, STOP),
            reload=get("reload", value(values.caught_signal), None),
            role=cast("Role", get("role", reader.one_of(*ROLES), "app")),
            short=get("short", reader.texts, ()),
            groups=get("groups", names, ()),
            limits=get("limits", parts.limits, {}),
            nice=get("nice", value(values.whole(-20, 19)), 0),
            user=get("user", value(values.account), None),
            group=get("group", value(values.account), None),
            umask=get("umask", value(values.umask), None),
            terminal=get("terminal", reader.boolean, False),
            log=get("log", parts.log, LOGGED),
            places={key.removeprefix(prefix): place for key, place in reader.places.items()},
        )  # fmt: skip
