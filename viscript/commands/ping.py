"""`viscript ping ID`: the round trip over the bus to the program itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bus.errors import NotPresent
from bus.signals import PING, Done, Pinged
from viscript.commands import find
from viscript.errors import Failed
from viscript.output import document, say

if TYPE_CHECKING:
    from viscript.client import Client


def run(client: Client, target: str, *, as_json: bool) -> None:
    status = client.ask(find.SUBJECT, find.Request([target]), find.Reply).launches[0]
    name = f"{status.app} (ID {status.id})"
    if status.ended is not None:
        raise Failed(f"{name} has ended: {status.exit or status.reason}")
    began = time.perf_counter()
    try:
        client.ask_participant(status.key, PING, Done(), Pinged)
    except NotPresent:
        raise Failed(
            f"{name} is {status.state} but not on the bus: it is no signal client, or not yet; "
            f"its process: viscript ru {status.id}"
        ) from None
    passed = time.perf_counter() - began
    if as_json:
        document({"id": status.id, "app": status.app, "seconds": round(passed, 6)})
    else:
        say(f"{name}: ping time {passed * 1000:.2f} ms")
