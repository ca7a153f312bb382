"""`viscript node ping`, `trace` and `speed`: measured by a node of this home, or the one named with --at."""

from __future__ import annotations

import statistics
import time

from msgspec import Struct

from bus.identity import short
from nodes import seen
from viscript.commands.node.mesh import Mesh
from viscript.commands.node.words import rate, seconds
from viscript.errors import Failed, Unknown, ViscriptError
from viscript.output import document, line, say, size

PATIENCE = 12.0  # s for the node to find a way, beside what it is told to wait


class Times(Struct):
    """Of a `ping`: seconds; `lost` are those that nobody answered."""

    key: str
    at: str
    sent: int
    lost: int
    times: list[float]
    min: float | None = None
    median: float | None = None
    max: float | None = None


def ping(
    word: str, at: str | None, count: int, interval: float, wait: float, *, as_json: bool
) -> None:
    """Sealed from end to end; `Failed` when nobody answered."""
    with Mesh() as mesh:
        key = mesh.find(word)
        asked = mesh.at(at, other=key)
        times: list[float] = []
        last: ViscriptError | None = None
        for number in range(1, count + 1):
            if number > 1:
                time.sleep(interval)
            try:
                pong = mesh.ask(
                    seen.PING, seen.Ping(key, wait), seen.Pong, to=asked, timeout=wait + PATIENCE
                )
            except (Failed, Unknown) as error:
                last = error
                if not as_json:
                    say(f"{number}: {error}")
                continue
            times.append(pong.rtt)
            if not as_json:
                more = f", {seconds(pong.waited)} with finding a way" if pong.waited > 0.1 else ""
                say(
                    f"{number}: {mesh.name(key)} ({short(key)}) answered in {seconds(pong.rtt)}{more}"
                )
        found = Times(key, asked, count, count - len(times), times)
        if times:
            found.min, found.median, found.max = min(times), statistics.median(times), max(times)
        _tell(mesh, found, as_json=as_json)
        if not times and last is not None:
            raise last


def _tell(mesh: Mesh, found: Times, *, as_json: bool) -> None:
    if as_json:
        if found.times:
            document(found)
        return
    if found.times and found.sent > 1:
        say(
            f"from {mesh.name(found.at)}: {found.sent} sent, {found.lost} lost; "
            f"{seconds(found.min)} to {seconds(found.max)}, median {seconds(found.median)}"
        )


def trace(
    word: str, at: str | None, probes: int, wait: float, *, standby: bool, as_json: bool
) -> None:
    """Who is on the way; `Failed` when the end did not answer."""
    with Mesh() as mesh:
        key = mesh.find(word)
        asked = mesh.at(at, other=key)
        query = seen.Trace(key, probes, wait, standby)
        found = mesh.ask(seen.TRACE, query, seen.Traced, to=asked, timeout=wait + PATIENCE)
    if as_json:
        document(found)
    else:
        say(f"from {mesh.name(asked)} to {mesh.name(key)} ({short(key)}), route {found.route}")
        for hop in found.hops:
            say(f"{hop.hop:3}  {_hop(mesh, hop)}")
    reached = any(hop.key == key for hop in found.hops)
    if not reached:
        raise Failed(f"{mesh.name(key)} did not answer within {wait:g} s")


def _hop(mesh: Mesh, hop: seen.Hop) -> str:
    times = "  ".join(seconds(x) if x is not None else "no answer" for x in hop.times)
    key = hop.key or hop.laid
    wrong = (
        f"  (not {mesh.name(hop.laid)}, as laid)"
        if hop.key and hop.laid not in ("", hop.key)
        else ""
    )
    return f"{mesh.name(key):24}  {times}{wrong}"


class Rate(Struct):
    """Of `speed`: `rate` in bytes a second, as they came there."""

    key: str
    at: str
    way: str  # "there" or "back"
    bytes: int
    seconds: float
    rate: float
    rtt: float | None


def speed(word: str, at: str | None, duration: float, *, back: bool, as_json: bool) -> None:
    """One stream there, and with `back` one the other way afterwards."""
    with Mesh() as mesh:
        key = mesh.find(word)
        asked = mesh.at(at, other=key)
        ends = [(asked, key, "there"), *([(key, asked, "back")] if back else [])]
        for here, there, way in ends:
            query = seen.Speed(there, duration)
            found = mesh.ask(
                seen.SPEED, query, seen.Measured, to=here, timeout=duration + PATIENCE + 10
            )
            per_second = found.octets / found.seconds if found.seconds > 0 else 0.0
            if as_json:
                line(Rate(key, asked, way, found.octets, found.seconds, per_second, found.rtt))
            else:
                say(
                    f"{mesh.name(here)} to {mesh.name(there)}: {rate(per_second)}, "
                    f"{size(found.octets)} in {found.seconds:.1f} s, round trip {seconds(found.rtt)}"
                )
