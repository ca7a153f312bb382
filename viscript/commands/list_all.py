"""`viscript list` in a cluster: of all hosts; those that are away with what they said last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viscript import meaning
from viscript.commands import fleet
from viscript.commands.list import chosen, show

if TYPE_CHECKING:
    from viscript.client import Client


def run(client: Client, words: list[str], *, everything: bool, as_json: bool) -> None:
    """`Partial` at the end says which are away."""
    found = fleet.look(client, everything=everything)
    launches = [*found.launches, *(status for away in found.away for status in away.launches)]
    if words:
        launches = chosen(launches, meaning.selected_here(client.home, words))
    show(sorted(launches, key=lambda status: status.id), as_json=as_json)
    problem = found.problem()
    if problem is not None:
        raise problem
