"""`viscript vpn exits`: the exits that are on the bus, and what they tell of themselves."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from viscript.commands import exits

KIND: Final = exits.Kind("vpn.stats", "app.vpn.stats", "vpn-server")  # docs/vpn-exit.md


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

    found = exits.ask(KIND, node, Exit)
    if as_json:
        document(found)
    else:
        for at, exit_ in enumerate(found):
            if at:
                say()
            _show(exit_)
    if not found:
        raise exits.none_is_there(KIND, node)


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
