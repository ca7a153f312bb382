"""`viscript bus conformance`: whether a broker speaks SB/1."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from viscript.commands.bus import typed
from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    from bus.conformance import Result
    from bus.identity import KeyPair
    from viscript.commands.bus.where import Where

app = typer.Typer(add_completion=False, rich_markup_mode=None)

KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="With ENDPOINT: our key there; as admin, enrolment and revocation are played too.",
    ),
]
OtherKeyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="A second key it admits; else one is let in by an admin for the while."
    ),
]
StopCommand = Annotated[
    str | None,
    typer.Option(
        "--stop-command",
        metavar="COMMAND",
        help="Tells the broker to stop: NOTICE is played last; with --other-key.",
    ),
]


@app.command(
    "conformance",
    epilog=examples(
        "viscript bus conformance",
        "viscript bus conformance tcp://127.0.0.1:7600 --broker-key KEY --key a.key --other-key b.key",
    ),
)
def conformance(
    endpoint: Annotated[
        str | None, typer.Argument(metavar="[ENDPOINT]", help="Absent: the broker in use.")
    ] = None,
    *,
    broker_key: Annotated[
        str | None, typer.Option("--broker-key", metavar="KEY", help="With ENDPOINT.")
    ] = None,
    key: KeyFile = None,
    other_key: OtherKeyFile = None,
    only: Annotated[
        str, typer.Option(metavar="TEXT", help="Only checks with this in their name.")
    ] = "",
    stop: StopCommand = None,
    patience: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.01, help="For one answer.")
    ] = 5.0,
) -> None:
    """Test whether a broker speaks SB/1.

    Plays the golden vectors and the specification's dialogues: on a broker that holds nothing dear.
    Exit code 1 when a check fails, or none could be made.
    """
    from bus import conformance as played
    from viscript.errors import BadUsage
    from viscript.output import Progress

    if stop is not None and other_key is None:
        raise BadUsage("--stop-command goes with --other-key: a key let in could not be taken out")
    place = _place(endpoint, broker_key, key)
    progress = Progress()
    with _second(place, other_key) as other:
        results = played.run(
            place.address, place.keypair(), other, patience=patience, only=only,
            progress=lambda result: progress.tell(result.name), stop=_running(stop),
        )  # fmt: skip
    progress.end()
    if not results:
        raise BadUsage(
            f"no check has {only!r} in its name; without --only all are played and shown"
        )
    _tell(place.address.endpoint, results)
    raise typer.Exit(played.exit_code(results))


def _tell(endpoint: str, results: list[Result]) -> None:
    from bus import conformance as played
    from viscript import options
    from viscript.output import document, say

    if options.as_json():
        document({"endpoint": endpoint, "checks": [vars(r) for r in results]})
    else:
        for result in results:
            _show(result)
        counts = ", ".join(
            f"{sum(r.outcome == outcome for r in results)} {outcome}"
            for outcome in (played.PASSED, played.FAILED, played.SKIPPED)
        )
        say(f"{endpoint}: {counts}")


def _running(command: str | None) -> Callable[[], None] | None:
    """Begins the command, without waiting for its end: it may well wait for the broker's."""
    import shlex
    import subprocess

    from viscript.errors import BadUsage

    if command is None:
        return None
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise BadUsage(f"--stop-command: {error}") from None
    if not words:
        raise BadUsage("--stop-command: empty")

    def run() -> None:
        try:
            subprocess.Popen(words, stdin=subprocess.DEVNULL)
        except OSError as error:
            raise BadUsage(f"--stop-command: {words[0]}: {error.strerror}") from None

    return run


def _place(endpoint: str | None, broker_key: str | None, key: Path | None) -> Where:
    from viscript import contexts
    from viscript.commands.bus.where import Where, here
    from viscript.errors import BadUsage

    if endpoint is None:
        if broker_key or key:
            raise BadUsage("--broker-key and --key go with ENDPOINT")
        return here(admin=True)
    if broker_key is None or key is None:
        raise BadUsage("with ENDPOINT, --broker-key and --key are needed")
    return Where(contexts.address(endpoint, typed.key(broker_key)), key, endpoint)


@contextlib.contextmanager
def _second(place: Where, file: Path | None) -> Iterator[KeyPair]:
    """The other participant: of `file`, or admitted by us, if we may, and taken out again."""
    from dataclasses import replace

    from bus.signals import ACCESS_PUT, ACCESS_REMOVE, AccessEntry, AccessKey
    from bus.sockets import new_keypair
    from viscript.commands.bus.connection import Asking
    from viscript.errors import BadUsage, Denied

    if file is not None:
        yield replace(place, key_file=file).keypair()
        return
    made = new_keypair()
    try:
        with Asking(place) as broker:
            broker.ask(ACCESS_PUT, AccessEntry(made.public, "conformance", ["operator"]), dict)
    except Denied as error:
        raise BadUsage(f"{error}; name a second key that it admits: --other-key FILE") from None
    try:
        yield made
    finally:
        with Asking(place) as broker:
            broker.ask(ACCESS_REMOVE, AccessKey(made.public), dict)


def _show(result: Result) -> None:
    from viscript.output import say
    from viscript.words import one_line

    say(f"{result.outcome:<8}{one_line(result.name)}")
    if result.outcome == "failed":
        for name in ("sent", "expected", "came"):
            say(f"        {name:<10}{one_line(getattr(result, name))}")
    elif result.came:
        say(f"        {one_line(result.came)}")
