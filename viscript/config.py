"""The configuration file: typed, strict, every complaint with file:line:column.

The schema is the original one (`apps:` and `settings:`) with optional keys; docs/config.md and
config/config.schema.json describe it. What a path names is not looked at here but when the app is
started, so that a file made for another machine still loads and lists.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Literal, TypeVar, cast

import yaml

from viscript.errors import BadConfig
from viscript.records import Restart
from viscript.words import did_you_mean

# The C loader is ten times faster; both build the same nodes and neither makes objects.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_BYTES = 1 << 20
MAX_NODES = 100_000  # with aliases expanded
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ENDPOINT = re.compile(r"tcp://\[?[A-Za-z0-9_.:-]+\]?:\d{1,5}")

Ready = Literal["bus", "none"]
Role = Literal["app", "node", "manager", "observer"]
T = TypeVar("T")


@dataclass(frozen=True)
class App:
    """One entry of `apps:` as written; `place` is file:line of its path."""

    name: str
    path: str
    place: str
    desc: str = ""
    help: str = ""
    daemon: bool = False  # kept from the original; every app is started in the background
    default_args: tuple[str, ...] = ()
    args: tuple[str, ...] = ()  # after default_args, before the user's
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    autostart: bool = False
    restart: Restart = "never"
    after: tuple[str, ...] = ()
    ready: Ready = "none"
    role: Role = "app"
    short: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """A whole file. `folder` is what relative paths are relative to."""

    file: Path
    apps: Mapping[str, App]
    endpoint: str | None = None  # of the broker; None: a free loopback port
    settings: Mapping[str, bool] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.file.parent


def shipped() -> Path:
    """The configuration that comes with the program: in a wheel, or in a checkout."""
    packaged = Path(str(files("viscript"))) / "_config"
    folder = packaged if packaged.is_dir() else Path(__file__).parents[1] / "config"
    return folder / "config.yaml"


def find(option: str | None, environment: Mapping[str, str], of_home: Path) -> Path:
    """`--config`, else VISCRIPT_CONFIG, else the home's own, else the shipped one. Never the cwd's."""
    named = option or environment.get("VISCRIPT_CONFIG")
    if named:
        return Path(named).expanduser().absolute()
    return of_home if of_home.exists() else shipped()


def load(file: Path) -> Config:
    """Read and check `file`; `BadConfig` says where and what."""
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadConfig(
            f"{file}: cannot be read: {error.strerror}; name another: --config"
        ) from None
    if len(text) > MAX_BYTES:
        raise BadConfig(f"{file}: larger than {MAX_BYTES >> 20} MiB, which no list of apps is")
    return parse(text, file)


def parse(text: bytes, file: Path) -> Config:
    """`load` of a text that is here already."""
    try:
        root = _Loader(text.decode()).get_single_node()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise BadConfig(f"{file}:{line}: not UTF-8 text: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else str(file)
        raise BadConfig(f"{place}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadConfig(f"{file}: not YAML: {problem}") from None
    return _Reader(file).config(root)


class _Reader:
    """Walks the nodes, which know their places, and takes what the schema knows."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._nodes = 0

    def config(self, root: yaml.Node | None) -> Config:
        if root is None:
            raise BadConfig(f"{self._file}:1:1: the file is empty; it needs `apps:`")
        top = self._mapping(root, "the file", ("apps", "settings"))
        if "apps" not in top:
            raise self._bad(root, "the key 'apps' is missing")
        entries = self._mapping(top["apps"], "apps")
        apps = {name: self._app(name, entries[name], key) for name, key in self._keys(top["apps"])}
        self._check_names(apps, entries)
        endpoint, settings = self._settings(top.get("settings"))
        return Config(self._file, apps, endpoint, settings)

    def _app(self, name: str, node: yaml.Node, key: yaml.Node) -> App:
        if not NAME.fullmatch(name):
            raise self._bad(
                key, f"app name {name!r}: a letter, then letters, digits and '_.-', at most 64"
            )
        where = f"apps.{name}"
        known = (
            "daemon", "desc", "path", "default_args", "help", "autostart", "args", "env", "cwd",
            "restart", "after", "ready", "role", "short",
        )  # fmt: skip
        entry = self._mapping(node, where, known)
        if "path" not in entry:
            raise self._bad(node, f"{where}: the key 'path' is missing")

        def get(key: str, read: Callable[[yaml.Node, str], T], default: T) -> T:
            found = entry.get(key)
            return default if found is None or _is_null(found) else read(found, f"{where}.{key}")

        path = self._text(entry["path"], f"{where}.path")
        if not path:
            raise self._bad(entry["path"], f"{where}.path: empty")
        of_ours = path.startswith("python:")
        return App(
            name, path, self._place(entry["path"]),
            desc=get("desc", self._text, ""),
            help=get("help", self._text, ""),
            daemon=get("daemon", self._boolean, False),
            default_args=get("default_args", self._texts, ()),
            args=get("args", self._texts, ()),
            env=get("env", self._environment, {}),
            cwd=get("cwd", self._text, "") or None,
            autostart=get("autostart", self._boolean, False),
            restart=cast("Restart", get("restart", self._one_of("never", "on-failure", "always"), "never")),
            after=get("after", self._texts, ()),
            ready=get("ready", self._one_of("bus", "none"), "bus" if of_ours else "none"),  # type: ignore[arg-type]
            role=cast("Role", get("role", self._one_of("app", "node", "manager", "observer"), "app")),
            short=get("short", self._texts, ()),
        )  # fmt: skip

    def _settings(self, node: yaml.Node | None) -> tuple[str | None, dict[str, bool]]:
        if node is None or _is_null(node):
            return None, {}
        switches = ("verboseInput", "verifyParsingByPrinting", "runHeadless")
        found = self._mapping(node, "settings", (*switches, "broker"))
        kept = {k: self._boolean(n, f"settings.{k}") for k, n in found.items() if k in switches}
        if "broker" not in found:
            return None, kept
        broker = self._mapping(found["broker"], "settings.broker", ("endpoint",))
        if "endpoint" not in broker:
            return None, kept
        endpoint = self._text(broker["endpoint"], "settings.broker.endpoint")
        if not ENDPOINT.fullmatch(endpoint) or int(endpoint.rpartition(":")[2]) > 65535:
            raise self._bad(
                broker["endpoint"], f"settings.broker.endpoint: {endpoint!r} is not tcp://HOST:PORT"
            )
        return endpoint, kept

    def _check_names(self, apps: Mapping[str, App], entries: Mapping[str, yaml.Node]) -> None:
        """Aliases are unique, `after` names apps that exist, and not in a circle."""
        owner = {name: name for name in apps}
        for app in apps.values():
            for alias in app.short:
                if not NAME.fullmatch(alias) or owner.setdefault(alias, app.name) != app.name:
                    taken = f"is taken by {owner[alias]!r}" if alias in owner else "is not a name"
                    raise self._bad(entries[app.name], f"apps.{app.name}.short: {alias!r} {taken}")
            for other in app.after:
                if other not in apps:
                    raise self._bad(
                        entries[app.name],
                        f"apps.{app.name}.after: no app {other!r}{did_you_mean(other, apps)}",
                    )
        for name in apps:
            if (circle := _circle(name, apps)) is not None:
                raise self._bad(
                    entries[name], f"apps.{name}.after: a circle: {' -> '.join(circle)}"
                )

    # Nodes.

    def _keys(self, node: yaml.Node) -> list[tuple[str, yaml.Node]]:
        return [(k.value, k) for k, _ in node.value] if isinstance(node, yaml.MappingNode) else []

    def _mapping(
        self, node: yaml.Node, where: str, known: tuple[str, ...] | None = None
    ) -> dict[str, yaml.Node]:
        if _is_null(node) and known is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise self._bad(node, f"{where}: must be a mapping (key: value), not {_kind(node)}")
        found: dict[str, yaml.Node] = {}
        places: dict[str, yaml.Node] = {}
        for key, value in node.value:
            self._count()
            if not isinstance(key, yaml.ScalarNode):
                raise self._bad(key, f"{where}: a key must be a word, not {_kind(key)}")
            name = key.value
            if name in places:
                raise self._bad(
                    key,
                    f"{where}: duplicate key {name!r}, first in line {places[name].start_mark.line + 1}",
                )
            if known is not None and name not in known:
                raise self._bad(key, f"{where}: unknown key {name!r}{did_you_mean(name, known)}")
            found[name], places[name] = value, key
        return found

    def _text(self, node: yaml.Node, where: str) -> str:
        """A scalar exactly as it is written: 08, yes and 1e3 stay what the user typed."""
        self._count()
        if not isinstance(node, yaml.ScalarNode) or _is_null(node):
            raise self._bad(node, f"{where}: must be text, not {_kind(node)}")
        value: str = node.value
        if "\0" in value:
            raise self._bad(node, f"{where}: holds a NUL character, which no program can be given")
        return value

    def _texts(self, node: yaml.Node, where: str) -> tuple[str, ...]:
        if not isinstance(node, yaml.SequenceNode):
            raise self._bad(node, f"{where}: must be a list, not {_kind(node)}")
        return tuple(self._text(item, f"{where}[{i}]") for i, item in enumerate(node.value))

    def _boolean(self, node: yaml.Node, where: str) -> bool:
        value = node.value if isinstance(node, yaml.ScalarNode) else None
        if node.tag != "tag:yaml.org,2002:bool" or not isinstance(value, str):
            raise self._bad(node, f"{where}: must be true or false, not {_kind(node)}")
        return value.lower() in {"true", "yes", "on"}

    def _environment(self, node: yaml.Node, where: str) -> dict[str, str]:
        values = self._mapping(node, where)
        for name, key in self._keys(node):
            if not ENV_NAME.fullmatch(name) or name.startswith("VISCRIPT_"):
                why = (
                    "is set by viscript itself" if name.startswith("VISCRIPT_") else "is not a name"
                )
                raise self._bad(key, f"{where}: {name!r} {why}")
        return {name: self._text(value, f"{where}.{name}") for name, value in values.items()}

    def _one_of(self, *words: str) -> Callable[[yaml.Node, str], str]:
        def read(node: yaml.Node, where: str) -> str:
            word = self._text(node, where)
            if word not in words:
                raise self._bad(
                    node,
                    f"{where}: {word!r} is not one of {', '.join(words)}{did_you_mean(word, words)}",
                )
            return word

        return read

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise BadConfig(f"{self._file}: more than {MAX_NODES} values; are aliases nested?")

    def _place(self, node: yaml.Node) -> str:
        return f"{self._file}:{node.start_mark.line + 1}"

    def _bad(self, node: yaml.Node, problem: str) -> BadConfig:
        return BadConfig(f"{self._place(node)}:{node.start_mark.column + 1}: {problem}")


def _is_null(node: yaml.Node) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null")


def _kind(node: yaml.Node) -> str:
    match node:
        case yaml.MappingNode():
            return "a mapping"
        case yaml.SequenceNode():
            return "a list"
        case _ if _is_null(node):
            return "nothing"
        case _:
            return f"{node.value!r}"


def _circle(start: str, apps: Mapping[str, App]) -> list[str] | None:
    """A way from `start` along `after` back to it."""
    ways, seen = [[start]], {start}
    while ways:
        way = ways.pop()
        for following in apps[way[-1]].after:
            if following == start:
                return [*way, start]
            if following not in seen:
                seen.add(following)
                ways.append([*way, following])
    return None
