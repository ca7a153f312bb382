"""`viscript vpn exits`: the exits that are on the bus, and what they tell of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from viscript.errors import Failed, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

STATS: Final = "vpn.stats"  # to an exit's key (docs/vpn-exit.md)
SERVED: Final = "app.vpn.stats"  # what every exit serves, by which it is found


class Client(Struct):
    """A client that has a lease at an exit."""

    key: str
    v4: str
    v6: str
    since: float
    up: int
    down: int
    rate_up: float
    rate_down: float
    volume: int
    blocked: dict[str, int]
    dropped: dict[str, int]
    round_trip: float | None = None


class Exit(Struct):
    """An exit as it tells of itself."""

    node: str
    key: str
    since: float
    clients: list[Client]
    most: int
    limits: dict[str, int]
    connections: int
    foreign: int
    resolver: dict[str, int]
    offload: list[str]
    warnings: list[str]


def show(node: str | None, *, as_json: bool) -> None:
    """`NotFound` (exit code 5) when there is none."""
    from viscript.output import document, say

    found = [exit_ for exit_ in _exits() if node in {None, exit_.node, exit_.key}]
    if as_json:
        document(found)
    else:
        for at, exit_ in enumerate(found):
            if at:
                say()
            _show(exit_)
    if not found:
        where = "on the bus" if node is None else f"at node {node!r}"
        raise NotFound(f"no exit is {where}; start one: viscript start vpn-server")


def _exits() -> Iterator[Exit]:
    """All that answer; one that does not is told of."""
    from bus.caller import Caller
    from bus.errors import BusError
    from bus.signals import SERVICES, Services
    from viscript.commands.bus.connection import NAME, TIMEOUT, as_shown, ask_all, translated
    from viscript.commands.bus.where import here
    from viscript.output import warn

    place = here()
    keys = {each.key for each in ask_all(SERVICES, Services).services if each.subject == SERVED}
    with (
        translated(place),
        Caller(place.address, place.keypair(), name=NAME, timeout=TIMEOUT) as caller,
    ):
        for key in sorted(keys):
            try:
                yield _read(caller.request(STATS, to=key, timeout=TIMEOUT))
            except BusError as error:
                warn(f"the exit {key} tells nothing: {as_shown(error, place)}")


def _read(body: bytes) -> Exit:
    try:
        return msgspec.msgpack.decode(body, type=Exit)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Failed(f"an exit answers what is not understood: {error}") from None


def _show(exit_: Exit) -> None:
    from bus.identity import short
    from viscript.output import age, say, size, table

    say(f"exit at node {exit_.node}, up {age(exit_.since)}")
    say(f"  clients      {len(exit_.clients)} of {exit_.most}, {exit_.connections} connections")
    say(f"  limits       {_limits(exit_.limits)}")
    say(f"  resolver     {_counts(exit_.resolver)}")
    say(f"  foreign      {exit_.foreign} packets of nobody's source")
    for warning in exit_.warnings:
        say(f"  warning      {warning}")
    rows = [
        (
            short(each.key), each.v4, age(each.since), size(each.up), size(each.down),
            f"{size(int(each.rate_up))}/s", f"{size(int(each.rate_down))}/s", _counts(each.blocked),
        )
        for each in exit_.clients
    ]  # fmt: skip
    if rows:
        say()
        table(("CLIENT", "ADDRESS", "SINCE", "UP", "DOWN", "NOW UP", "NOW DOWN", "BLOCKED"), rows)


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items())) or "none"


def _limits(limits: dict[str, int]) -> str:
    from viscript.output import size

    said = [f"{size(limits[name])}/s {name}" for name in ("up", "down") if limits.get(name)]
    if limits.get("connections"):
        said.append(f"{limits['connections']} connections")
    if limits.get("volume"):
        said.append(f"{size(limits['volume'])} a day")
    return ", ".join(said) or "none"
