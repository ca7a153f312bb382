"""`viscript socks status`: the exits that are on the bus, and what they tell of themselves."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from viscript.commands import exits

KIND: Final = exits.Kind("socks.stats", "app.socks.stats", "socks-server")  # docs/socks-exit.md
_FULL_KEYS: Final = 20  # shown to people


class Resolver(Struct):
    entries: int
    hits: int
    misses: int


class KeyUse(Struct):
    """What the apps of one node have used; `volume` and `rate` are limits, 0 for none."""

    key: str
    since: float
    connections: int
    associations: int
    opened: int
    refused: dict[str, int]
    bytes_in: int
    bytes_out: int
    used: int
    volume: int
    rate: int


class Exit(Struct):
    """An exit as it tells of itself."""

    node: str
    key: str
    port: int
    since: float
    access: str
    load: float
    connections: int
    dialling: int
    associations: int
    opened: int
    refused: dict[str, int]
    dropped: dict[str, int]
    bytes_in: int
    bytes_out: int
    resolver: Resolver
    keys: list[KeyUse]
    keys_known: int


def status(node: str | None, *, as_json: bool) -> None:
    from viscript.output import document

    found = exits.ask(KIND, node, Exit)
    if as_json:
        document(found)
    elif node is None:
        _show_all(found)
    else:
        for exit_ in found:
            _show(exit_)
    if not found:
        raise exits.none_is_there(KIND, node)


def _show_all(found: list[Exit]) -> None:
    from viscript.output import age, size, table

    head = (
        "EXIT",
        "UP",
        "LOAD",
        "CONNECTIONS",
        "DATAGRAMS",
        "FROM TARGETS",
        "TO TARGETS",
        "REFUSED",
        "FOR",
    )
    rows = [
        (
            each.node, age(each.since), f"{each.load:.0%}", str(each.connections),
            str(each.associations), size(each.bytes_in), size(each.bytes_out),
            str(sum(each.refused.values())), _access(each),
        )
        for each in found
    ]  # fmt: skip
    if rows:
        table(head, rows)


def _access(exit_: Exit) -> str:
    return "all nodes" if exit_.access == "all" else "some keys"


def _show(exit_: Exit) -> None:
    from bus.identity import short
    from viscript.output import age, say, size, table

    cache = exit_.resolver
    say(f"exit at node {exit_.node}, mesh port {exit_.port}, for {_access(exit_)}")
    say(f"  node key     {exit_.key or 'the node is away'}")
    say(f"  up           {age(exit_.since)}, load {exit_.load:.0%}")
    say(
        f"  connections  {exit_.connections} now, {exit_.dialling} being dialled, {exit_.opened} so far"
    )
    say(f"  datagrams    {exit_.associations} associations now")
    say(f"  bytes        {size(exit_.bytes_in)} from targets, {size(exit_.bytes_out)} to them")
    say(f"  refused      {_counts(exit_.refused)}")
    say(f"  dropped      {_counts(exit_.dropped)} (datagrams)")
    say(
        f"  resolver     {cache.entries} names kept, {cache.hits} answered from there, {cache.misses} asked"
    )
    if not exit_.keys:
        return
    say()
    head = (
        "USER'S NODE",
        "CONNECTIONS",
        "DATAGRAMS",
        "SO FAR",
        "FROM TARGETS",
        "TO TARGETS",
        "REFUSED",
        "LIMITS",
    )
    rows = [
        (
            short(each.key), str(each.connections), str(each.associations), str(each.opened),
            size(each.bytes_in), size(each.bytes_out), str(sum(each.refused.values())), _limits(each),
        )
        for each in exit_.keys[:_FULL_KEYS]
    ]  # fmt: skip
    table(head, rows)
    if exit_.keys_known > len(rows):
        say(f"and {exit_.keys_known - len(rows)} more keys")


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items())) or "none"


def _limits(each: KeyUse) -> str:
    from viscript.output import size

    said = [f"{size(each.rate)}/s"] if each.rate else []
    if each.volume:
        said.append(f"{size(each.used)} of {size(each.volume)}")
    return ", ".join(said)
