"""`viscript vpn status` and `doctor`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.commands.vpn import told
from viscript.errors import NoDaemon, NotRunning, ViscriptError
from viscript.output import age, document, moment, say, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from viscript.commands.vpn.told import Report, Told
    from viscript.home import Home


class Shown(Struct, frozen=True):
    """What the client says and what the machine is like, together."""

    on: bool
    client: Told
    machine: Report


def status(home: Home, *, as_json: bool) -> None:
    """`NotRunning` (exit code 3) when the VPN is off."""
    report = told.mend(home, "look")
    said = _client(home) if report.on else told.Told()
    if as_json:
        document(Shown(report.on, said, report))
    else:
        for line in _lines(report, said):
            say(line)
    if not report.on:
        raise NotRunning("the VPN is off; on: viscript vpn on KEY|NAME|fastest")


def doctor(home: Home, *, repair: bool, as_json: bool) -> int:
    """Compare what is with what should be; with `repair` make it so. 0 when all is well, else 1."""
    report = told.mend(home, "repair" if repair else "look")
    said = _client(home) if report.on else None
    if as_json:
        document({"on": report.on, "parts": report.parts, "client": said})
    else:
        say(f"the VPN is {'on, ' + _age(report.since) if report.on else 'off'}")
        for part in report.parts:
            say(f"{'BROKEN  ' if part.todo else 'ok      '} {part.part}: {part.text}")
            if part.todo:
                say(f"          do: {part.todo}")
        if said is not None:
            say(f"{'ok      ' if said.state == 'connected' else 'WARNING '} client: {_state(said)}")
            if said.state == told.UNKNOWN:
                say("          do: viscript up; if the client runs, so does the tunnel")
            if said.state == "not running":
                say("          do: viscript vpn on, or viscript vpn off; nothing leaves meanwhile")
    well = not any(part.todo for part in report.parts)
    return 0 if well and (said is None or said.state == "connected") else 1


def _client(home: Home) -> Told:
    from viscript.client import Client

    try:
        with Client(home) as client:
            launch = told.running(client)
            return told.Told() if launch is None else told.ask(client, launch)
    except NoDaemon as error:
        return told.Told(state=told.UNKNOWN, trouble=str(error))


def _lines(report: Report, said: Told) -> Iterator[str]:
    if not report.on:
        return
    name = namer([*report.exits, said.exit])
    yield f"on, {_age(report.since)}; exits: {', '.join(map(name, report.exits))}"
    yield f"tunnel:   {_state(said, name(said.exit))}"
    figures = said.figures
    if said.state == "connected":
        yield f"address:  {', '.join(said.addresses)}, MTU {said.mtu}"
        yield f"names:    {'the system' if report.own_dns else ', '.join(said.resolvers)}"
        yield (
            f"in:       {size(figures.rate_in)}/s, {size(figures.bytes_in)}; "
            f"out: {size(figures.rate_out)}/s, {size(figures.bytes_out)}"
        )
        trip = "unknown" if figures.round_trip is None else f"{figures.round_trip * 1000:.1f} ms"
        yield f"exit:     round trip {trip}, {said.clients} clients, load {said.load:.0%}"
        yield f"limits:   {_limits(said)}"
        yield f"offload:  {', '.join(figures.offload) or 'off'}"
    for label, networks in (("only", report.only), ("beside", report.exclude)):
        if networks:
            yield f"{label + ':':9} {', '.join(networks)}"
    if report.lan:
        yield "lan:      private networks around are reached beside the tunnel"
    yield f"blocked:  here {_counts({k: v[0] for k, v in report.blocked.items()})}"
    if said.blocked:
        yield f"          at the exit {_counts(said.blocked)}"
    for part in report.parts:
        if part.todo:
            yield f"BROKEN:   {part.part}: {part.text}; do: {part.todo}"


def namer(words: Iterable[str]) -> Callable[[str], str]:
    """What nodes are called here, as far as it can be known just now."""
    from bus.identity import is_key
    from viscript.commands.node.mesh import Mesh

    keys = {word for word in words if is_key(word)}
    names: dict[str, str] = {}
    if keys:
        with contextlib.suppress(ViscriptError), Mesh() as mesh:
            names = {key: mesh.name(key) for key in keys}
    return lambda word: names.get(word, word)


def _state(said: Told, exit_: str = "") -> str:
    if said.state == "connected":
        return f"to {exit_ or said.exit} over {said.node}, {_age(said.since)}"
    beside = " beside it" if said.state == told.UNKNOWN else ""
    return said.state + (f": {said.trouble}" if said.trouble else "") + f"; nothing leaves{beside}"


def _age(since: float) -> str:
    return f"since {moment(since)} ({age(since)})"


def _limits(said: Told) -> str:
    limits = said.limits
    rates = [f"{name} {size(limits[name])}/s" for name in ("up", "down") if limits.get(name)]
    if limits.get("connections"):
        rates.append(f"{limits['connections']} connections")
    if limits.get("volume"):
        rates.append(f"{size(said.volume)} of {size(limits['volume'])} today")
    return ", ".join(rates) or "none"


def _counts(packets: dict[str, int]) -> str:
    shown = [f"{name} {count}" for name, count in packets.items() if count]
    return f"{', '.join(shown)} packets" if shown else "nothing"
