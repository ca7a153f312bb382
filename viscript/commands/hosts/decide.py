"""`viscript host accept|reject|revoke|rm`: an admin decides on a host, by its fingerprint or name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from bus.identity import fingerprint
from viscript.cluster.registry import RoleName
from viscript.errors import BadUsage, NotFound
from viscript.output import document, say

if TYPE_CHECKING:
    from bus.signals import Enrolment
    from viscript.client import Client
    from viscript.cluster.registrar import Registrar
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.host.decide"
Verb = Literal["accept", "reject", "revoke", "rm"]
DONE = {"accept": "accepted", "reject": "rejected", "revoke": "revoked", "rm": "removed"}


class Request(Struct):
    verb: Verb
    host: str  # fingerprint; of one that belongs also its name or key
    name: str = ""  # accept: what it will be called
    role: RoleName = "view"  # accept: of its people on the other hosts


class Reply(Struct):
    name: str
    fingerprint: str


async def handle(launcher: Launcher, request: Request, _caller: Caller) -> Reply:
    from viscript.commands import hosts

    registrar = hosts.registrar(launcher)
    match request.verb:
        case "accept":
            waits = await _waiting(registrar, request.host)
            await registrar.accept(waits, request.name, request.role)
            return Reply(request.name or waits.name, waits.fingerprint)
        case "reject":
            waits = await _waiting(registrar, request.host)
            await registrar.reject(waits)
            return Reply(waits.name, waits.fingerprint)
        case _:
            if registrar.registry is None:
                raise NotFound(f"no host {request.host[:80]!r}: none has joined yet")
            host = registrar.registry.find(request.host)
            await (registrar.revoke(host) if request.verb == "revoke" else registrar.remove(host))
            return Reply(host.name, fingerprint(host.key))


async def _waiting(registrar: Registrar, word: str) -> Enrolment:
    """Only by the whole fingerprint: the name is what it says of itself."""
    waiting = await registrar.pending()
    for enrolment in waiting:
        if word == enrolment.fingerprint:
            return enrolment
    if any(word == enrolment.name for enrolment in waiting):
        raise BadUsage(
            f"{word[:80]!r} is what it calls itself; compare its fingerprint with what that machine "
            "shows and give that; see: viscript host ls"
        )
    raise NotFound(
        f"nobody with the fingerprint {word[:80]!r} asks to be admitted; see: viscript host ls"
    )


def run(client: Client, request: Request, *, as_json: bool) -> None:
    client.at_first()
    done = client.ask(SUBJECT, request, Reply)
    if as_json:
        document({"host": done.name, "fingerprint": done.fingerprint, "done": DONE[request.verb]})
        return
    say(f"{done.name} is {DONE[request.verb]} ({done.fingerprint})")
    if request.verb in {"revoke", "rm"}:
        say("What runs there goes on; nobody here sees or commands it any more.")
