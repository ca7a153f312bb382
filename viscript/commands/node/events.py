"""`viscript node events`: what happens to nodes, links and routes, as the manager publishes it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from msgspec import Struct, structs

from nodes import api
from viscript import options
from viscript.commands.bus.connection import attend
from viscript.commands.bus.sub import follow
from viscript.commands.node.mesh import Mesh
from viscript.output import line, moment, warn
from viscript.words import one_line

if TYPE_CHECKING:
    from bus.client import Bus
    from bus.subscription import Message

KINDS: Final[dict[str, type[Struct]]] = {
    api.EVENT_MANAGER: api.ManagerEvent, api.EVENT_NODE: api.NodeEvent, api.EVENT_LINK: api.LinkEvent,
    api.EVENT_ROUTE: api.RouteEvent,
}  # fmt: skip


def show(count: int | None, seconds: float | None) -> None:
    with Mesh() as mesh:
        pass  # for the names

    async def work(bus: Bus) -> None:
        subscription = await bus.subscribe("mesh.event.>")
        await follow(
            subscription,
            count,
            seconds,
            lambda message: _show(mesh, message),
            only=frozenset(KINDS),
        )

    attend(work, place=mesh.place)


def _show(mesh: Mesh, message: Message) -> None:
    try:
        event = api.unpack(message.body, KINDS[message.subject])
    except api.BadBody as error:
        warn(f"{message.subject}: not understood: {error}")
        return
    what = message.subject.rpartition(".")[2]
    if options.as_json():
        line({"time": time.time(), "kind": what, **structs.asdict(event)}, flush=False)
    else:
        sys.stdout.write(one_line(f"{moment(time.time())}  {what}  {_text(mesh, event)}") + "\n")


def _text(mesh: Mesh, event: Struct) -> str:
    match event:
        case api.NodeEvent(name, key, state):
            return f"{mesh.addresses.name(key) or name} is {state}"
        case api.LinkEvent(a, b, state, reason):
            return f"{mesh.name(a)} - {mesh.name(b)} is {state}{': ' * bool(reason)}{reason}"
        case api.RouteEvent(_, path, state, reason):
            return f"{mesh.path(path)} is {state}{': ' * bool(reason)}{reason}"
        case _:
            return "a node manager has started"
