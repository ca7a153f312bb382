"""The commands of `bus-broker` on keys and tokens; they work on its folder, whether it runs or not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from bus.exits import fail

if TYPE_CHECKING:
    from bus.access import AccessList
    from bus.doorkeeper import Doorkeeper
    from bus.settings import BrokerFiles
    from bus.signals import AccessEntry, Rules

CONFIG_NAME = "broker.json"
PATIENCE = 5.0  # seconds that we wait for another program to leave the folder alone
_TAKE_OVER = "tell a running broker: kill -HUP PID"

Folder = Annotated[
    Path, typer.Argument(help="Folder that holds broker.json, the key and the access list.")
]
Key = Annotated[
    str,
    typer.Argument(help="Public key: 64 hex digits, or Z85 (after -- if it begins with a dash)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, one object.")]


def allow(
    folder: Folder,
    key: Key,
    role: Annotated[
        list[str] | None, typer.Option(help="Role; may be given several times.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name for people; carries no right.")] = "",
    allow: Annotated[
        list[str] | None,
        typer.Option(help="VERB=PATTERN that this key may do beside its roles; several times."),
    ] = None,
    deny: Annotated[
        list[str] | None,
        typer.Option(help="VERB=PATTERN that it may not, whatever allows it; several times."),
    ] = None,
) -> None:
    """Allow a key, or replace what it may do. A running broker takes it over on SIGHUP.

    VERB is publish, subscribe, request, serve or signal.
    """
    from bus.signals import AccessEntry

    with _changing(folder) as (files, entries):
        entry = AccessEntry(
            _key(key), name, role or [], _rules("--allow", allow), _rules("--deny", deny)
        )
        _save(files, entries.with_entry(entry))
    granted = ", ".join([*entry.roles, *(f"allow {rule}" for rule in allow or [])])
    denied = "".join(f", deny {rule}" for rule in deny or [])
    typer.echo(f"{entry.key} is allowed as {granted}{denied}; {_TAKE_OVER}")


def forbid(folder: Folder, key: Key) -> None:
    """Forbid a key. A running broker ends its sessions at once on SIGHUP."""
    with _changing(folder) as (files, entries):
        forbidden = _key(key)
        if forbidden not in entries:
            fail(f"{files.access_file}: the key {forbidden} is not on the list")
        _save(files, entries.without(forbidden))
    typer.echo(f"{forbidden} is forbidden; {_TAKE_OVER}")


def keys(folder: Folder, *, as_json: AsJson = False) -> None:
    """List the allowed keys, with their fingerprints and what they may do beside their roles."""
    from bus.identity import fingerprint, to_hex

    _, entries = _load(folder)
    if as_json:
        from msgspec import json, to_builtins

        rows = [
            {**to_builtins(e), "hex": to_hex(e.key), "fingerprint": fingerprint(e.key)}
            for e in entries.entries
        ]
        typer.echo(json.encode({"keys": rows}).decode())
        return
    for entry in entries.entries:
        typer.echo(f"{fingerprint(entry.key)}  {entry.name or '-'}  {','.join(entry.roles) or '-'}")
        typer.echo(f"  {to_hex(entry.key)}  {entry.key}")
        for line in _told(entry):
            typer.echo(f"  {line}")


def token(
    folder: Folder,
    role: Annotated[list[str], typer.Option(help="Role of who joins; may be given several times.")],
    name: Annotated[str, typer.Option(help="Its name; without, it says its own.")] = "",
    valid: Annotated[float, typer.Option(help="Seconds until the token expires.")] = 3600.0,
    endpoint: Annotated[
        str, typer.Option(help="Where it reaches the broker, if not where broker.json says.")
    ] = "",
) -> None:
    """Make a token that admits one key, once; print it in a join string. A running broker knows it at once.

    The join string is a secret until it was used or has expired.
    """
    from bus import doorkeeper, join, keystore
    from bus.access import AccessError
    from bus.errors import KeyFileError
    from bus.identity import Address
    from bus.signals import TokenQuery

    files = _files(folder)
    made = doorkeeper.new_token()
    query = TokenQuery(role, name, valid)
    try:
        broker = keystore.load(files.key_file).public
        text = join.pack(Address(endpoint or files.endpoint, broker), made)
        _doorkeeper(files).change(lambda door: door.with_token(made, query, time.time())[0])
    except join.JoinError as error:
        fail(f"{error}; say where machines reach it: --endpoint tcp://HOST:PORT")
    except (AccessError, KeyFileError, OSError) as error:
        fail(str(error))
    typer.echo(text)


def tokens(
    folder: Folder,
    remove: Annotated[str, typer.Option(help="Take the token with this id back.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """List the tokens that wait to be used, by id; the tokens themselves are nowhere."""
    from bus.access import AccessError

    keeper = _doorkeeper(_files(folder))
    try:
        if remove:
            keeper.change(lambda door: door.without(remove, time.time()))
        live = keeper.read().live(time.time())
    except (AccessError, OSError) as error:
        fail(str(error))
    if as_json:
        from msgspec import json

        typer.echo(json.encode({"tokens": [token.info() for token in live]}).decode())
        return
    for found in live:
        left = found.expires - time.time()
        typer.echo(f"{found.id}  {found.name or '-'}  {','.join(found.roles)}  {left:.0f} s left")


def register(app: typer.Typer) -> None:
    for command in (allow, forbid, keys, token, tokens):
        app.command()(command)


# Reading and changing the folder.


def _files(folder: Path) -> BrokerFiles:
    from bus.settings import SettingsError, load

    try:
        return load(folder / CONFIG_NAME).files(folder)
    except SettingsError as error:
        fail(str(error))


def _doorkeeper(files: BrokerFiles) -> Doorkeeper:
    from bus.doorkeeper import Doorkeeper

    return Doorkeeper.beside(files.access_file, patience=PATIENCE)


def _load(folder: Path) -> tuple[BrokerFiles, AccessList]:
    from bus import keystore
    from bus.access import AccessError

    files = _files(folder)
    try:
        return files, keystore.load_access(files.access_file)
    except AccessError as error:
        fail(str(error))


@contextmanager
def _changing(folder: Path) -> Iterator[tuple[BrokerFiles, AccessList]]:
    """The access list, which nobody else changes meanwhile; what goes wrong is told."""
    from bus import keystore
    from bus.access import AccessError

    try:
        with keystore.locked(folder, PATIENCE):
            yield _load(folder)
    except (AccessError, OSError) as error:
        fail(str(error))


def _save(files: BrokerFiles, entries: AccessList) -> None:
    from bus import keystore

    keystore.save_access(files.access_file, entries)


def _key(text: str) -> str:
    """A key in either form, in Z85; what is neither is left to the access list to refuse."""
    from bus.identity import from_hex

    try:
        return from_hex(text)
    except ValueError:
        return text


def _rules(option: str, given: list[str] | None) -> Rules | None:
    from bus.access import VERBS
    from bus.signals import Rules

    if not given:
        return None
    found: dict[str, list[str]] = {}
    for rule in given:
        verb, equals, pattern = rule.partition("=")
        if not equals or verb not in VERBS:
            fail(f"{option} is VERB=PATTERN, VERB one of {', '.join(VERBS)}; not {rule!r}", 2)
        found.setdefault(verb, []).append(pattern)
    return Rules(**found)


def _told(entry: AccessEntry) -> list[str]:
    from msgspec import to_builtins

    return [
        f"{field} {verb} {' '.join(patterns)}"
        for field, rules in (("allow", entry.allow), ("deny", entry.deny))
        if rules is not None
        for verb, patterns in cast("dict[str, Any]", to_builtins(rules)).items()
    ]
