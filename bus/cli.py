"""`bus-broker`: the headless broker daemon and the few commands that set it up."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

EXIT_CONFIG = 8
EXIT_CONFLICT = 9
CONFIG_NAME = "broker.json"

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="The message broker of Viscript: CURVE public keys are identities, nobody unknown gets in.\n\n"
    "Exit codes: 0 stopped cleanly, 2 usage, 8 configuration or key file, 9 endpoint taken.",
)  # fmt: skip

Folder = Annotated[
    Path, typer.Argument(help="Folder that holds broker.json, the key and the access list.")
]


@app.command()
def init(
    folder: Folder,
    endpoint: Annotated[
        str, typer.Option(help="Where to listen: tcp://HOST:PORT.")
    ] = "tcp://127.0.0.1:7600",
) -> None:
    """Make a broker's folder: its configuration, its key, an access list with one admin key."""
    from bus import keystore
    from bus.access import AccessList
    from bus.errors import KeyFileError
    from bus.settings import BrokerSettings, save
    from bus.signals import AccessEntry

    config = folder / CONFIG_NAME
    try:
        if config.exists():
            _fail(
                f"{config}: there is a broker here already; run: bus-broker run {folder}",
                EXIT_CONFLICT,
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        broker = keystore.load_or_create(folder / "broker.key")
        admin = keystore.load_or_create(folder / "admin.key")
        entries = AccessList([AccessEntry(admin.public, "admin", ["admin"])])
        keystore.save_access(folder / "access.json", entries)
        save(config, BrokerSettings(endpoint, "broker.key", "access.json"))
    except KeyFileError as error:
        _fail(str(error), EXIT_CONFIG)
    except OSError as error:
        _fail(f"{error.filename or folder}: cannot be made: {error.strerror}", EXIT_CONFIG)
    typer.echo(f"broker key  {broker.public}")
    typer.echo(f"admin key   {folder / 'admin.key'}")
    typer.echo(f"start it    bus-broker run {folder}")


@app.command()
def allow(
    folder: Folder,
    key: Annotated[str, typer.Argument(help="Public key in Z85 form.")],
    role: Annotated[list[str], typer.Option(help="Role; may be given several times.")],
    name: Annotated[str, typer.Option(help="Name for people; carries no right.")] = "",
) -> None:
    """Allow a key, or change its roles. A running broker takes it over on SIGHUP."""
    from bus import keystore
    from bus.access import AccessError
    from bus.signals import AccessEntry

    path = folder / "access.json"
    try:
        entries = keystore.load_access(path)
        keystore.save_access(path, entries.with_entry(AccessEntry(key, name, role)))
    except (AccessError, OSError) as error:
        _fail(str(error), EXIT_CONFIG)
    typer.echo(f"{key} is allowed as {', '.join(role)}; tell a running broker: kill -HUP PID")


@app.command()
def run(
    folder: Folder,
    log: Annotated[str, typer.Option(help="Log format: lines or json.")] = "lines",
) -> None:
    """Run the broker in the foreground until SIGTERM or SIGINT; SIGHUP reads the access list again."""
    from bus import logs
    from bus.access import AccessError
    from bus.broker import Broker
    from bus.errors import BusError, KeyFileError
    from bus.settings import SettingsError, load

    if log not in {"lines", "json"}:
        _fail(f"--log is lines or json, not {log}", 2)
    logs.configure("json" if log == "json" else "lines")
    logger = logging.getLogger("bus.broker")
    try:
        files = load(folder / CONFIG_NAME).files(folder)
        broker = Broker(files, lambda what, fields: logs.event(logger, what, **fields))
    except (SettingsError, KeyFileError, AccessError) as error:
        _fail(str(error), EXIT_CONFIG)
    except BusError as error:
        _fail(str(error), EXIT_CONFLICT)
    signal.signal(signal.SIGTERM, lambda *_: broker.stop())
    signal.signal(signal.SIGINT, lambda *_: broker.stop())
    signal.signal(signal.SIGHUP, lambda *_: broker.reload())
    logs.event(
        logger, "listening", endpoint=broker.info.endpoint, key=broker.info.key, pid=os.getpid(),
        **({"monitor": broker.pages} if broker.pages else {}),
    )  # fmt: skip
    broker.run()
    logs.event(logger, "stopped", refused=dict(broker.refused))


def _fail(problem: str, code: int) -> NoReturn:
    typer.echo(f"bus-broker: {problem}", err=True)
    raise typer.Exit(code)


def main() -> None:
    sys.exit(app())


if __name__ == "__main__":
    main()
