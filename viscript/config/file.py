"""Finding, reading and checking a configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import yaml

from viscript import plainfile
from viscript.config import names, values
from viscript.config.entry import Entry
from viscript.config.model import Config
from viscript.config.nodes import MAX_PROBLEMS, BadFile, Fields, Reader, is_null, keys
from viscript.errors import BadConfig

# The C loader is ten times faster; both build the same nodes and neither makes objects.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_BYTES = 1 << 20
SWITCHES = ("verboseInput", "verifyParsingByPrinting", "runHeadless")


def shipped() -> Path:
    """The configuration that comes with the program."""
    return _shipped_folder() / "config.yaml"


def schema() -> Path:
    """The JSON Schema that comes with the program."""
    return _shipped_folder() / "config.schema.json"


def _shipped_folder() -> Path:
    """In a wheel, or in a checkout."""
    packaged = Path(str(files("viscript"))) / "_config"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "config"


def find(option: str | None, environment: Mapping[str, str], of_home: Path) -> Path:
    """`--config`, else VISCRIPT_CONFIG, else the home's own, else the shipped one. Never the cwd's."""
    named = option or environment.get("VISCRIPT_CONFIG")
    if named:
        return Path(named).expanduser().absolute()
    return of_home if of_home.exists() else shipped()


def load(file: Path) -> Config:
    """Read and check `file`; `BadFile` says where and what."""
    return parse(read(file), file)


def read(file: Path) -> bytes:
    """The text of `file`, as long as it can be a configuration."""
    try:
        text = plainfile.read_given(file, MAX_BYTES + 1)
    except OSError as error:
        raise BadFile(f"{file}: cannot be read: {error.strerror}; name another: --config") from None
    if len(text) > MAX_BYTES:
        raise BadFile(f"{file}: larger than {MAX_BYTES >> 20} MiB, which no list of apps is")
    return text


def parse(text: bytes, file: Path) -> Config:
    """`load` of a text that is here already."""
    try:
        return _config(Reader(file), _tree(text, file), file)
    except BadFile:
        raise
    except BadConfig as error:
        raise BadFile(str(error)) from None


def _tree(text: bytes, file: Path) -> yaml.Node | None:
    """The nodes of the document; None when there is none."""
    try:
        root: yaml.Node | None = _Loader(text.decode()).get_single_node()
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
    return root


def _config(reader: Reader, root: yaml.Node | None, file: Path) -> Config:
    if root is None:
        raise BadConfig(f"{file}:1:1: the file is empty; it needs `apps:`")
    top = reader.mapping(root, "the file", ("apps", "settings"))
    if "apps" not in top:
        raise reader.bad(root, "the key 'apps' is missing")
    nodes = reader.mapping(top["apps"], "apps")
    entries: dict[str, Entry] = {}
    problems: list[str] = []
    for name, key in keys(top["apps"]):
        try:
            entries[name] = Entry(reader, name, nodes[name], key)
        except BadFile as error:
            problems += error.problems
            if len(problems) >= MAX_PROBLEMS:
                raise BadFile(*problems[:MAX_PROBLEMS]) from None
    endpoint: str | None = None
    settings: dict[str, bool] = {}
    try:
        endpoint, settings = _settings(reader, top.get("settings"))
        if not problems:  # else names may be missing only because their entries are bad
            problems += names.check(reader, entries)[:MAX_PROBLEMS]
    except BadConfig as error:
        problems.append(str(error))
    if problems:
        raise BadFile(*problems)
    return Config(file, {name: e.app for name, e in entries.items()}, endpoint, settings)


def _settings(reader: Reader, node: yaml.Node | None) -> tuple[str | None, dict[str, bool]]:
    if node is None or is_null(node):
        return None, {}
    found = Fields(reader, node, "settings", (*SWITCHES, "broker"))
    kept = {key: found.get(key, reader.boolean, False) for key in found.keys if key in SWITCHES}

    def broker(node: yaml.Node, where: str) -> str | None:
        return Fields(reader, node, where, ("endpoint",)).get(
            "endpoint", reader.value(values.endpoint), None
        )

    return found.get("broker", broker, None), kept
