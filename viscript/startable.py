"""All that keeps an app from being started on this machine, as far as it can be seen before."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from viscript import accounts, catalog
from viscript.errors import BadConfig

if TYPE_CHECKING:
    from viscript.config import App, Config


def problems(config: Config, app: App, search: str) -> list[str]:
    """Each with its place; `search` is the PATH in which programs are looked for."""

    def probes() -> None:
        for key, probe in (("ready", app.ready), ("alive", app.alive)):
            if probe is not None and probe.kind == "exec":
                _check_program(config, app, key, probe.target[0], search)

    looks: tuple[Callable[[], object], ...] = (
        lambda: catalog.argv(config, app, (), search),
        lambda: _check_module(config, app),
        lambda: accounts.check(app),
        lambda: catalog.environment(config, app),
        lambda: catalog.folder(config, app),
        probes,
    )
    found: list[str] = []
    for look in looks:
        try:
            look()
        except BadConfig as error:
            found.append(str(error))
    return found


def _check_module(config: Config, app: App) -> None:
    """`BadConfig` when our own Python does not have the module; nothing of it is run."""
    name = app.path.removeprefix(catalog.PYTHON)
    try:
        elsewhere = "PYTHONPATH" in catalog.environment(config, app)
    except BadConfig:  # said by itself
        elsewhere = True
    if name == app.path or elsewhere:
        return
    parts, path = name.split("."), None
    for number in range(len(parts)):
        word = ".".join(parts[: number + 1])
        specs = (finder.find_spec(word, path) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec is not None), None)
        path = None if spec is None else spec.submodule_search_locations
        last = number == len(parts) - 1
        if spec is None or (path is None and not last):
            problem = f"{sys.executable} has no module {word!r}; is it installed there?"
            raise BadConfig(f"{app.place}: apps.{app.name}.path: {problem}")


def _check_program(config: Config, app: App, key: str, program: str, search: str) -> None:
    if "{" in program or ("/" in program and not program.startswith("/") and app.cwd is None):
        return  # known only when it runs
    if "/" in program:
        folders = [catalog.folder(config, app) or "/"]
    else:
        folders = app.env.get("PATH", search).split(os.pathsep)
    if not any(os.access(Path(folder) / program, os.X_OK) for folder in folders):
        place = app.places.get(f"{key}.exec", app.places.get(key, app.place))
        problem = f"there is no program {program!r} that can be run"
        raise BadConfig(f"{place}: apps.{app.name}.{key}.exec: {problem}")
