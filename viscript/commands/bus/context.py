"""`viscript bus context`: names for brokers and for who we are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from viscript.commands.bus import complete, typed
from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    from bus.identity import Address
    from viscript.contexts import Context

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None,
    help="Names for brokers and for our keys there. Nothing secret is in them.",
)  # fmt: skip

Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete.contexts)]


@app.command("list")
def list_() -> None:
    """List the contexts; the chosen one is marked."""
    from viscript.commands.bus.where import contexts
    from viscript.errors import ViscriptError
    from viscript.output import listing, warn

    known = contexts()
    found: dict[str, Context] = {}
    for name in known.names():
        try:
            found[name] = known.load(name)
        except ViscriptError as error:
            warn(str(error))
    chosen = known.selected
    head = ("", "NAME", "ENDPOINT", "BROKER KEY", "KEY FILE")
    rows = (
        ("*" if name == chosen else "", name, c.endpoint, c.broker_key, c.key_file)
        for name, c in found.items()
    )
    documents = [_fields(name, context, chosen) for name, context in found.items()]
    listing(documents, head, rows, "No contexts. Make one: viscript bus context add --help")


def _fields(name: str, context: Context, chosen: str | None) -> dict[str, object]:
    return {
        "name": name,
        "endpoint": context.endpoint,
        "broker_key": context.broker_key,
        "key_file": context.key_file,
        "chosen": name == chosen,
    }


@app.command(
    "add",
    epilog=examples(
        "viscript bus context add work tcp://10.0.0.5:7600 BROKER_KEY",
        "viscript bus context add here --key ~/keys/mine.key",
    ),
)
def add(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    endpoint: Annotated[
        str | None, typer.Argument(metavar="[ENDPOINT]", help="Absent: of the instance of --home.")
    ] = None,
    broker_key: Annotated[
        str | None, typer.Argument(metavar="[BROKER_KEY]", help="What the broker must prove.")
    ] = None,
    *,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="Our key file; made if there is none."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace one of this name.")] = False,
) -> None:
    """Name a broker. Without a key file of ours one is made; an admin has to allow its public key."""
    from viscript.commands.bus.topics import done
    from viscript.commands.bus.where import contexts
    from viscript.contexts import Context
    from viscript.errors import Conflict

    known = contexts()
    if name in known.names() and not force:
        raise Conflict(f"there is a context {name!r} already; replace it with --force")
    address = _address(endpoint, broker_key)
    path = (key or known.key_path(name)).expanduser().absolute()
    public, made = own_key(path)
    known.save(name, Context(address.endpoint, address.key, str(path)), replace=force)
    fields: dict[str, object] = {"name": name, "key": public, "key_file": str(path), "made": made}
    text = f"context {name}: {address.endpoint}\nour key there: {public} ({path})"
    if made:
        allow = f"viscript bus keys allow {typed.for_shell(public)} --role app"
        text += f"\nit is new; an admin allows it: {allow}"
    done(fields, text)


def _address(endpoint: str | None, broker_key: str | None) -> Address:
    from viscript import contexts
    from viscript.commands.bus.where import here
    from viscript.errors import BadUsage

    if endpoint is None:
        return here().address
    if broker_key is None:
        raise BadUsage(
            "BROKER_KEY is missing: the 40 characters that the broker must prove to have"
        )
    return contexts.address(endpoint, typed.key(broker_key))


def own_key(path: Path) -> tuple[str, bool]:
    """The public half of what is in the file, and whether it was made now. `Denied`."""
    from bus import keystore
    from bus.errors import KeyFileError
    from viscript.errors import Denied

    made = not path.exists()
    try:
        return keystore.load_or_create(path).public, made
    except KeyFileError as error:
        raise Denied(str(error)) from None
    except OSError as error:
        raise Denied(f"{path}: cannot be made: {error.strerror}") from None


@app.command()
def use(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", autocompletion=complete.contexts)
    ] = None,
    *,
    none: Annotated[
        bool, typer.Option("--none", help="None: commands use the instance of their home again.")
    ] = False,
) -> None:
    """Choose the context for commands that name no broker."""
    import os

    from viscript.commands.bus.topics import done
    from viscript.commands.bus.where import contexts
    from viscript.errors import BadUsage
    from viscript.output import warn

    if (name is None) != none:
        raise BadUsage("give a name, or --none")
    contexts().select(name)
    done({"chosen": name}, f"context {name} is chosen" if name else "no context is chosen")
    for variable in ("VISCRIPT_CONTEXT", "VISCRIPT_HOME"):
        if name and os.environ.get(variable):
            warn(f"${variable} is set and goes before it")


@app.command()
def show(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", autocompletion=complete.contexts)
    ] = None,
) -> None:
    """Show a context, or without a name what commands use now."""
    from bus import keystore
    from bus.errors import KeyFileError
    from viscript.commands.bus.topics import done
    from viscript.commands.bus.where import contexts, find, here

    place = find(name, None, {}, contexts()) if name else here()
    try:
        public: str | None = keystore.load(place.key_file).public
        problem = ""
    except KeyFileError as error:
        public, problem = None, str(error)
    fields: dict[str, object] = {
        "place": place.name,
        "endpoint": place.address.endpoint,
        "broker_key": place.address.key,
        "key_file": str(place.key_file),
        "key": public,
        "problem": problem or None,
    }
    ours = f"our key     {public or problem}"
    done(
        fields,
        f"{place.name}\nendpoint    {place.address.endpoint}\nbroker key  {place.address.key}\n"
        f"key file    {place.key_file}\n{ours}",
    )


@app.command("rm")
def remove(name: Name) -> None:
    """Remove a context; its key file stays."""
    from viscript.commands.bus.topics import done
    from viscript.commands.bus.where import contexts

    known = contexts()
    path = known.load(name).key_file
    known.remove(name)
    done({"removed": name, "key_file": path}, f"context {name} is removed; its key stays in {path}")
