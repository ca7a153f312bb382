"""`viscript bus token`: a join string, which admits one key, once."""

from __future__ import annotations

from typing import Annotated

import typer

from viscript.commands.bus import complete
from viscript.commands.bus.texts import examples

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    "token",
    epilog=examples(
        "viscript bus token --role app --name thermometer",
        "viscript bus token --role node --seconds 600 --endpoint tcp://bus.example.org:7600",
    ),
)
def token(
    *,
    role: Annotated[
        list[str],
        typer.Option("--role", autocompletion=complete.roles, help="May be given several times."),
    ],
    name: Annotated[str, typer.Option(metavar="NAME", help="The key's name on the list.")] = "",
    seconds: Annotated[float, typer.Option(min=1, help="Until it expires.")] = 3600.0,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="tcp://HOST:PORT", help="As the other machine reaches the broker."),
    ] = None,
) -> None:
    """Make a join string, which admits one key once.

    On the other machine `viscript bus join` reads it. It is a secret until it was used or has
    expired, and shown only now.
    """
    import sys

    from bus import join
    from bus.identity import Address
    from bus.signals import ENROL_TOKEN, Token, TokenQuery
    from viscript import options
    from viscript.commands.bus.connection import Asking
    from viscript.commands.bus.where import here
    from viscript.errors import BadUsage
    from viscript.output import document, moment, note, say

    place = here(admin=True)
    address = Address(endpoint or place.address.endpoint, place.address.key)
    with Asking(place) as broker:
        made = broker.ask(ENROL_TOKEN, TokenQuery(role, name, seconds), Token)
    try:
        text = join.pack(address, made.token)
    except join.JoinError as error:
        raise BadUsage(f"{error}; --endpoint says how the other machine reaches it") from None
    if options.as_json():
        document({"join": text, "expires": made.expires, "roles": role, "name": name})
        return
    say(text)
    if sys.stdout.isatty():
        roles = " ".join(role)
        note(f"Admits one key as {roles} until {moment(made.expires)}: viscript bus join - NAME")
