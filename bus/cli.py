"""`bus-broker`: the headless broker daemon and the few commands that set it up."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Annotated

import typer

from bus import keys
from bus.exits import EXIT_CONFIG, EXIT_CONFLICT, fail
from bus.keys import CONFIG_NAME, Folder

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="The message broker of Viscript: CURVE public keys are identities, nobody unknown gets in.\n\n"
    "Exit codes: 0 stopped cleanly, 2 usage, 8 configuration, key file or damaged topics, 9 endpoint taken.",
)  # fmt: skip


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
            fail(
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
        fail(str(error), EXIT_CONFIG)
    except OSError as error:
        fail(f"{error.filename or folder}: cannot be made: {error.strerror}", EXIT_CONFIG)
    typer.echo(f"broker key  {broker.public}")
    typer.echo(f"admin key   {folder / 'admin.key'}")
    typer.echo(f"start it    bus-broker run {folder}")


@app.command()
def run(
    folder: Folder,
    log: Annotated[str, typer.Option(help="Log format: lines or json.")] = "lines",
) -> None:
    """Run the broker in the foreground until SIGTERM or SIGINT; SIGHUP reads the access list again."""
    from bus import logs
    from bus.broker import Broker
    from bus.errors import BusError, EndpointTaken
    from bus.settings import load

    if log not in {"lines", "json"}:
        fail(f"--log is lines or json, not {log}", 2)
    logs.configure("json" if log == "json" else "lines")
    logger = logging.getLogger("bus.broker")
    try:
        files = load(folder / CONFIG_NAME).files(folder)
        broker = Broker(files, lambda what, fields: logs.event(logger, what, **fields))
    except EndpointTaken as error:
        fail(str(error), EXIT_CONFLICT)
    except BusError as error:
        fail(str(error), EXIT_CONFIG)
    signal.signal(signal.SIGTERM, lambda *_: broker.stop())
    signal.signal(signal.SIGINT, lambda *_: broker.stop())
    signal.signal(signal.SIGHUP, lambda *_: broker.reload())
    logs.event(
        logger, "listening", endpoint=broker.info.endpoint, key=broker.info.key, pid=os.getpid(),
        **({"monitor": broker.pages} if broker.pages else {}),
    )  # fmt: skip
    broker.run()
    logs.event(logger, "stopped", refused=dict(broker.refused))


@app.command()
def repair(folder: Folder) -> None:
    """Save what can be saved of damaged durable topics. The broker must not run; the damaged file is kept."""
    import time

    from bus.errors import BusError
    from bus.settings import load
    from bus.topics.repair import repair as save_topics
    from bus.topics.repair import stretches

    try:
        path = load(folder / CONFIG_NAME).files(folder).topics_file
        report = save_topics(path, time.strftime("%Y%m%d-%H%M%S", time.gmtime())) if path else None
    except BusError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or folder}: not repaired: {error.strerror}; nothing has changed")
    if report is None:
        typer.echo(f"{path}: nothing is wrong with it; nothing has changed")
        return
    for topic in report.topics:
        lost = stretches(topic.lost) or "nothing"
        typer.echo(f"topic {topic.topic}: {topic.messages} messages saved; lost: {lost}")
        for note in topic.notes:
            typer.echo(f"topic {topic.topic}: {note}")
    typer.echo(f"the damaged file is kept as {report.kept}")
    typer.echo(f"start it    bus-broker run {folder}")


keys.register(app)


def main() -> None:
    sys.exit(app())


if __name__ == "__main__":
    main()
