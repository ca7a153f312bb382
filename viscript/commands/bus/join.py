"""`viscript bus join`: have a key of ours admitted, and name the broker."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from viscript.commands.bus import typed
from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    from bus.identity import Address, KeyPair
    from bus.wire import Enrolled
    from viscript.contexts import Contexts

app = typer.Typer(add_completion=False, rich_markup_mode=None)

PAUSE = 5.0  # seconds between two looks whether an admin has decided: too many are turned away


@app.command(
    "join",
    epilog=examples(
        "viscript bus join - work            # then paste the join string",
        "viscript bus join --from join.txt work",
        "viscript bus join tcp://10.0.0.5:7600 work --broker-key KEY --wait 600",
    ),
)
def join(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[-|ENDPOINT] NAME",
            help="-: the join string is read from standard input. NAME: of the context that is made.",
        ),
    ],
    *,
    file: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="The join string is in FILE.")
    ] = None,
    broker_key: Annotated[
        str | None, typer.Option("--broker-key", metavar="KEY", help="With ENDPOINT only.")
    ] = None,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="For an admin to decide.")
    ] = 0.0,
    force: Annotated[bool, typer.Option("--force", help="Replace a context of this name.")] = False,
) -> None:
    """Be admitted to a bus: makes a key and a context NAME.

    With a join string (see: viscript bus token) this is done at once; it is a secret, and never an
    argument. With an endpoint and the broker's key an admin decides: viscript bus keys pending, there.
    """
    from viscript.commands.bus.where import contexts

    refuse_secrets(*words, str(file), str(broker_key))
    source, name = _told_apart(words, file)
    address, token = meant(source, broker_key)
    known = contexts()
    _check_free(known, name, address, force=force)
    keypair = _own_key(known, name)
    answer = _enrol(address, keypair, name, token, time.monotonic() + wait)
    _settle(known, name, address, keypair, answer)


def refuse_secrets(*arguments: str) -> None:
    """`BadUsage`, which does not repeat it, if a join string is among the arguments."""
    from bus.join import looks_like_one
    from viscript.errors import BadUsage

    if any(looks_like_one(argument) for argument in arguments):
        raise BadUsage(
            "a join string is a secret, and others on this machine can read arguments: paste it after "
            "viscript bus join - NAME, or give a file with --from FILE; if others use this machine, "
            "let this one expire and ask for a new one (viscript bus token)"
        )


def _told_apart(words: list[str], file: Path | None) -> tuple[str | Path, str]:
    """Where the join string or the broker is, and the name of the context."""
    from viscript.errors import BadUsage

    source: list[str | Path] = [*words[:-1]] if file is None else [*words[:-1], file]
    if len(source) != 1:
        raise BadUsage("give - or ENDPOINT and NAME, or --from FILE and NAME")
    return source[0], words[-1]


def meant(source: str | Path, broker_key: str | None) -> tuple[Address, str]:
    """Where, and the token; it is empty when an admin has to decide."""
    from bus import join as joining
    from viscript import contexts
    from viscript.errors import BadUsage

    if isinstance(source, str) and source.startswith(("tcp://", "ipc://")):
        if broker_key is None:
            raise BadUsage("--broker-key is missing: the key that the broker must prove to have")
        return contexts.address(source, typed.key(broker_key)), ""
    if broker_key is not None:
        raise BadUsage("--broker-key goes with an endpoint; a join string has the key in it")
    try:
        meant = joining.parse(_read(source))
    except joining.JoinError as error:
        raise BadUsage(f"{error} (made by: viscript bus token)") from None
    return meant.address, meant.token


def _read(source: str | Path) -> str:
    """The join string: of a file, or typed or piped in."""
    from viscript.commands.bus import bodies
    from viscript.errors import BadUsage

    if isinstance(source, Path):
        return bodies.given(None, source).decode(errors="replace")
    if source != "-":
        raise BadUsage("neither - nor an endpoint (tcp://HOST:PORT) comes before NAME")
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass("Join string (not shown): ")
    return bodies.given("-").decode(errors="replace")


def _check_free(known: Contexts, name: str, address: Address, *, force: bool) -> None:
    from viscript.errors import Conflict

    if not force and name in known.names() and known.load(name).address != address:
        raise Conflict(f"the context {name!r} is another broker; choose another name, or --force")


def _own_key(known: Contexts, name: str) -> KeyPair:
    from bus import keystore
    from viscript.commands.bus.context import own_key

    path = known.key_path(name)
    own_key(path)
    return keystore.load(path)


def _enrol(address: Address, keypair: KeyPair, name: str, token: str, deadline: float) -> Enrolled:
    """Ask, and while it is pending again until `deadline` (monotonic)."""
    from bus import join as joining
    from viscript.commands.bus.connection import translated
    from viscript.commands.bus.where import Where
    from viscript.output import note

    told = False
    while True:
        with translated(Where(address, Path(), address.endpoint)):
            answer = joining.enrol(address, keypair, name, token)
        left = deadline - time.monotonic()
        if answer.state != "pending" or left <= 0:
            return answer
        if not told:
            note(f"waiting for an admin; our fingerprint: {answer.fingerprint}")
            told = True
        time.sleep(min(PAUSE, left))


def _settle(
    known: Contexts, name: str, address: Address, keypair: KeyPair, answer: Enrolled
) -> None:
    from viscript.commands.bus.topics import done
    from viscript.contexts import Context
    from viscript.errors import Denied, Unknown

    if answer.state not in {"accepted", "pending"}:
        raise Denied(
            f"{address.endpoint} does not admit our key ({answer.fingerprint}): a token admits once and "
            "until it expires; ask for a new one: viscript bus token"
        )
    path = known.key_path(name)
    known.save(name, Context(address.endpoint, address.key, str(path)), replace=True)
    if answer.state == "pending":
        raise Unknown(
            f"an admin has not decided yet; tell them our fingerprint: {answer.fingerprint} "
            f"(viscript bus keys accept, there), then this again, or use --context {name}"
        )
    fields: dict[str, object] = {
        "name": name,
        "endpoint": address.endpoint,
        "broker_key": address.key,
        "key": keypair.public,
        "key_file": str(path),
        "fingerprint": answer.fingerprint,
        "roles": answer.roles,
    }
    done(
        fields,
        f"admitted as {' '.join(answer.roles)}; fingerprint {answer.fingerprint}\n"
        f"use it: viscript bus rtt --context {name}",
    )
