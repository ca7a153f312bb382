"""Arguments and options that several commands take, and where the configuration is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from viscript import options

if TYPE_CHECKING:
    from pathlib import Path

    from viscript.client import Client
    from viscript.home import Home

ConfigOption = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="Configuration of the apps.")
]
HostName = Annotated[
    str | None, typer.Option("--host", "-H", metavar="NAME", help="Of another host of the cluster.")
]
Target = Annotated[str, typer.Argument(metavar="ID|APP", help="Id, or an app that runs once.")]
Targets = Annotated[list[str], typer.Argument(metavar="ID|APP...", help="Ids or app names.")]


def as_json(option: bool) -> bool:  # noqa: FBT001 - passes an option on
    return options.as_json(option=option)


def client(home: str | None) -> Client:
    """One session with the daemon of the home that is meant."""
    from viscript.client import Client

    return Client(options.home(home))


@contextmanager
def daemon_of(host: str | None, home: str | None) -> Iterator[Client]:
    """A session with the daemon of that host of the cluster, or of the home itself."""
    with client(home) as ours:
        yield ours.at_named(host) if host else ours


def config_file(option: str | None, home: Home) -> Path:
    """The file named, else what the daemon uses that runs or was killed, else as `config.find` says."""
    from viscript import config
    from viscript.client import last_config

    named = option or os.environ.get("VISCRIPT_CONFIG")
    return config.find(named or last_config(home), {}, home.config)
