"""Arguments of `viscript host`, `viscript join` and `viscript leave`."""

# ruff: noqa: FBT002, PLR0913 - typer makes options of parameters

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from viscript import options
from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import ConfigOption, as_json, client, config_file

if TYPE_CHECKING:
    from viscript.cluster.registry import RoleName
    from viscript.commands.hosts.decide import Verb

app = typer.Typer(
    help="Which hosts belong to this cluster. What is shown here needs the first host's daemon.",
    no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip
ROLES = ("none", "view", "operate", "configure", "admin")
Which = Annotated[
    str, typer.Argument(metavar="HOST", help="Name or fingerprint; see: viscript host ls.")
]
Print = Annotated[str, typer.Argument(metavar="FINGERPRINT", help="The whole of it.")]
NameOption = Annotated[
    str,
    typer.Option("--name", metavar="NAME", help="What the host is called; else as its machine."),
]
RoleOption = Annotated[
    str,
    typer.Option("--role", metavar="ROLE", help="Of its people on the other hosts: none, view, …"),
]


def _role(word: str) -> RoleName:
    from viscript.errors import BadUsage

    if word not in ROLES:
        raise BadUsage(f"no role {word[:40]!r}; roles are {', '.join(ROLES)}")
    return cast("RoleName", word)


@app.command()
def invite(
    name: NameOption = "",
    role: RoleOption = "view",
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint", metavar="HOST[:PORT]", help="As the other machine reaches this one."
        ),
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Make a join string: admits one host, once, for ten minutes. It is a secret until then."""
    from viscript.commands.hosts import invite as command

    request = command.Request(name, _role(role))
    with client(home) as daemon:
        command.run(daemon, request, endpoint, as_json=as_json(json))


@app.command()
def ls(home: HomeOption = None, json: JsonOption = False) -> None:
    """List the hosts: state, when they were heard last; exit code 10 when one is not reachable."""
    from viscript.commands.hosts import ls as command

    with client(home) as daemon:
        command.run(daemon, as_json=as_json(json))


@app.command()
def accept(
    host: Print,
    name: NameOption = "",
    role: RoleOption = "view",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Admit a host that asks, after you have compared its fingerprint with what it shows."""
    _decide("accept", host, name, role, home, json=json)


@app.command()
def reject(host: Print, home: HomeOption = None, json: JsonOption = False) -> None:
    """Turn a host away that asks."""
    _decide("reject", host, "", "none", home, json=json)


@app.command()
def revoke(host: Which, home: HomeOption = None, json: JsonOption = False) -> None:
    """Cut a host off at once: its daemon, its people, its apps. It stays in the list."""
    _decide("revoke", host, "", "none", home, json=json)


@app.command()
def rm(host: Which, home: HomeOption = None, json: JsonOption = False) -> None:
    """Cut a host off and forget it."""
    _decide("rm", host, "", "none", home, json=json)


def _decide(verb: Verb, host: str, name: str, role: str, home: str | None, *, json: bool) -> None:
    from viscript.commands.hosts import decide as command

    request = command.Request(verb, host, name, _role(role))
    with client(home) as daemon:
        command.run(daemon, request, as_json=as_json(json))


def join(
    source: Annotated[
        str,
        typer.Argument(
            metavar="[-|ENDPOINT]", help="-: the join string is read from standard input."
        ),
    ] = "-",
    *,
    file: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="The join string is in FILE.")
    ] = None,
    broker_key: Annotated[
        str | None, typer.Option("--broker-key", metavar="KEY", help="With ENDPOINT only.")
    ] = None,
    wait: Annotated[
        float,
        typer.Option("--wait", metavar="S", min=0, help="With ENDPOINT: for an admin to decide."),
    ] = 0.0,
    name: NameOption = "",
    grant: Annotated[
        str,
        typer.Option("--grant", metavar="ROLE", help="Of the other hosts' people here, at most."),
    ] = "operate",
    up: Annotated[
        bool, typer.Option("--up/--no-up", help="Whether to start the daemon then.")
    ] = True,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Make this a host of another's cluster, with the string that `viscript host invite` printed there.

    It is read from standard input or a file, never an argument: others could read that. With the endpoint and
    the broker's key instead an admin there decides: viscript host accept.
    """
    from viscript.commands import join as command
    from viscript.commands.bus import join as joining

    joining.refuse_secrets(source, str(file), str(broker_key), name)
    place = options.home(home)
    address, token = joining.meant(source if file is None else file, broker_key)
    fields = command.enrol(place, address, token, name=name, grant=_role(grant), wait=wait)
    if not up:
        command.told(fields, as_json=as_json(json))
        return
    if not as_json(json):
        command.told(fields, as_json=False)
    from viscript.commands import up as starting
    from viscript.surface import whole

    file_of_apps = config_file(config, place)
    starting.run(place, file_of_apps, whole.serve, detach=True, as_json=as_json(json))


def leave(home: HomeOption = None, json: JsonOption = False) -> None:
    """Stop being a host of another's cluster; everything must be down."""
    from viscript.commands import join as command

    command.leave(options.home(home), as_json=as_json(json))
