"""`viscript host invite`: a one-time join string for one more host."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.cluster.registry import RoleName
from viscript.commands import hosts
from viscript.errors import BadUsage
from viscript.output import document, moment, note, say

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.host.invite"
_ANYWHERE = ("0.0.0.0", "[::]", "*")  # noqa: S104 - looked for, not bound
_HERE = ("127.", "localhost", "[::1]")


class Request(Struct):
    name: str = ""  # what the host will be called; empty: as its machine is
    role: RoleName = "view"  # of its people on the other hosts


class Reply(Struct):
    token: str
    expires: float  # Unix seconds


async def handle(launcher: Launcher, request: Request, _caller: Caller) -> Reply:
    made = await hosts.registrar(launcher).invite(request.name, request.role)
    return Reply(made.token, made.expires)


def run(client: Client, request: Request, endpoint: str | None, *, as_json: bool) -> None:
    from bus import join
    from bus.identity import Address

    where = reachable(client.info.endpoint, endpoint)
    client.at_first()
    try:
        join.pack(Address(where, client.info.broker_key), "A" * 43)  # before a token is made
    except join.JoinError as error:
        raise BadUsage(f"{error}; --endpoint HOST[:PORT] says how this host is reached") from None
    made = client.ask(SUBJECT, request, Reply)
    text = join.pack(Address(where, client.info.broker_key), made.token)
    if as_json:
        document(
            {"join": text, "expires": made.expires, "name": request.name, "role": request.role}
        )
        return
    say(text)
    if sys.stdout.isatty():
        note(
            f"Admits one host until {moment(made.expires)}. On the other machine: viscript join, "
            "and paste this; it is a secret until then."
        )


def reachable(listens: str, given: str | None) -> str:
    """How the other machine reaches the broker: as `given`, else as it listens; `BadUsage`."""
    address, _, port = listens.removeprefix("tcp://").rpartition(":")
    if given is not None:
        where = given.removeprefix("tcp://")
        return f"tcp://{where}" if _has_port(where) else f"tcp://{where}:{port}"
    if address.startswith(_HERE):
        raise BadUsage(
            f"the broker listens at {listens}, which no other machine reaches; put settings.broker.endpoint: "
            f"tcp://0.0.0.0:{port} into the configuration, then viscript down and up; or say with "
            "--endpoint HOST:PORT how it is reached"
        )
    if address in _ANYWHERE:
        return f"tcp://{_own_address()}:{port}"
    return listens


def _has_port(where: str) -> bool:
    return where.rpartition(":")[2].isdecimal() and not where.endswith("]") and ":" in where


def _own_address() -> str:
    """The address of this machine that the way out begins at; `BadUsage` when there is none."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a datagram socket sends nothing by this
        except OSError:
            raise BadUsage(
                "the broker listens at all addresses and none leads out; say with --endpoint HOST how "
                "the other machine reaches this one"
            ) from None
        return str(probe.getsockname()[0])
