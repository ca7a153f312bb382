"""`viscript ping [APP…]`: does it live? Three levels, each with its round trip: keeper, bus loop, probe."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.commands.seen import seen
from viscript.errors import Failed
from viscript.output import document, say, table

if TYPE_CHECKING:
    from pathlib import Path

    from viscript.client import Client
    from viscript.launcher import Launcher
    from viscript.records import Record
    from viscript.roles import Caller

SUBJECT = "viscript.ping"
TIMEOUT = 2.0  # seconds for each level
AT_ONCE = 200
MARGIN = 5.0


class Request(Struct):
    words: list[str]
    timeout: float = TIMEOUT


class Level(Struct):
    """What one level says; `ok` is null where there is nothing to ask, and `text` says why."""

    ok: bool | None
    seconds: float | None = None  # round trip
    age: float = 0.0  # seconds since it was measured
    text: str = ""


class Pinged(Struct):
    """One launch. `seconds` is the round trip over the bus."""

    id: int
    app: str
    state: str
    keeper: Level  # the process that keeps it answers, so the daemon has it in hand
    bus: Level  # its event loop answers
    probe: Level  # it does its job, as the configuration measures that
    seconds: float | None = None
    host: str = ""

    @property
    def well(self) -> bool:
        return all(level.ok is not False for level in (self.keeper, self.bus, self.probe))


class Reply(Struct):
    pinged: list[Pinged]


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Reply:
    """All at once, `AT_ONCE` at a time."""
    import asyncio

    records = seen(launcher, request.words, caller)
    timeout = max(0.05, min(request.timeout, 30.0))
    room = asyncio.Semaphore(AT_ONCE)

    async def one(record: Record) -> Pinged:
        async with room:
            return await _ping(launcher, record, timeout)

    return Reply(list(await asyncio.gather(*(one(record) for record in records))))


async def _ping(launcher: Launcher, record: Record, timeout: float) -> Pinged:
    import asyncio

    if not record.live or record.state in {"blocked", "backoff"}:
        text = "does not run" if record.live else f"has ended: {record.exit or record.reason}"
        none = Level(ok=None)
        return Pinged(record.id, record.app, record.state, Level(ok=False, text=text), none, none)
    keeper, bus = await asyncio.gather(
        _keeper(launcher.keeper_socket(record.id), timeout), _bus(launcher, record, timeout)
    )
    return Pinged(
        record.id,
        record.app,
        record.state,
        keeper,
        bus,
        _probe(launcher, record),
        bus.seconds,
        launcher.host,
    )


async def _keeper(socket: Path, timeout: float) -> Level:
    """Its first line says that it is there; the second, after an order, is the round trip."""
    import asyncio

    from viscript.processes import LINE

    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(socket, limit=LINE)
            try:
                await reader.readline()
                began = time.perf_counter()
                writer.write(b'{"do": "ping"}\n')
                answer = await reader.readline()
                passed = time.perf_counter() - began
            finally:
                writer.close()
    except TimeoutError:
        return Level(ok=False, text=f"does not answer within {timeout:g} s")
    except (OSError, ValueError) as error:
        return Level(ok=False, text=f"cannot be reached: {error}")
    if not answer:
        return Level(ok=False, text="hung up")
    return Level(ok=True, seconds=round(passed, 6))


async def _bus(launcher: Launcher, record: Record, timeout: float) -> Level:
    from bus.errors import BusError, DeadlineExceeded, NotPresent
    from bus.signals import PING, Done, pack

    if launcher.membership is None:
        return Level(ok=False, text="there is no bus")
    began = time.perf_counter()
    try:
        await launcher.membership.bus.request(PING, pack(Done()), to=record.key, timeout=timeout)
    except NotPresent:
        if record.on_bus:
            return Level(ok=False, text="not on the bus")
        return Level(ok=None, text="not on the bus: it is no signal client")
    except DeadlineExceeded:
        return Level(ok=False, text=f"does not answer within {timeout:g} s")
    except BusError as error:
        return Level(ok=False, text=str(error))
    return Level(ok=True, seconds=round(time.perf_counter() - began, 6))


def _probe(launcher: Launcher, record: Record) -> Level:
    """The last answer of its own probe, and how old that is."""
    probed = launcher.probed.get(record.id)
    if probed is None:
        return Level(ok=None, text="no probe is configured, or none has answered yet")
    age = max(0.0, time.time() - probed.at)
    return Level(probed.ok, round(probed.seconds, 6), round(age, 3), probed.text)


def run(client: Client, words: list[str], *, timeout: float, as_json: bool) -> None:
    """`Failed` when one does not answer on a level that it has."""
    problem = None
    if client.known is not None:
        from viscript.commands import fleet

        found = fleet.meant(client, words)
        pinged = []
        for host, reply in fleet.gather(
            client,
            found,
            SUBJECT,
            lambda ids: Request(ids if words else [], timeout),
            Reply,
            timeout + MARGIN,
        ):
            for each in reply.pinged:
                each.host = host.name
            pinged += reply.pinged
        problem = found.problem()
    else:
        pinged = client.ask(SUBJECT, Request(words, timeout), Reply, timeout + MARGIN).pinged
    single = len(words) == 1 and len(pinged) == 1
    if as_json:
        document(pinged[0] if single else pinged)
    elif single:
        say(f"{_name(pinged[0])}: {_told(pinged[0])}")
    elif pinged:
        table(
            ("ID", "APP", "STATE", "KEEPER", "BUS", "PROBE"),
            [(str(x.id), x.app, x.state, *map(_cell, (x.keeper, x.bus, x.probe))) for x in pinged],
        )
    else:
        say("Nothing runs. What can be started: viscript apps")
    silent = [x for x in pinged if not x.well]
    if silent:
        names = ", ".join(_name(x) for x in silent[:5])
        raise Failed(
            f"{len(silent)} of {len(pinged)} not well: {names}; {_told(silent[0])}; "
            f"see: viscript why {silent[0].id}"
        )
    if problem is not None:
        raise problem


def _name(pinged: Pinged) -> str:
    at = f" on {pinged.host}" if pinged.host else ""
    return f"{pinged.app} (ID {pinged.id}){at}"


def _told(pinged: Pinged) -> str:
    """`keeper 0.2 ms, bus: ping time 0.4 ms, probe …` for people."""
    if pinged.bus.ok is None and not pinged.bus.text:
        return f"is {pinged.state}, {pinged.keeper.text}"
    parts = [f"keeper {_cell(pinged.keeper)}"]
    if pinged.bus.seconds is not None:
        parts.append(f"bus ping time {pinged.bus.seconds * 1000:.2f} ms")
    else:
        parts.append(f"bus {pinged.bus.text}")
    if pinged.probe.ok is not None:
        parts.append(f"probe {_cell(pinged.probe)}")
    return ", ".join(parts)


def _cell(level: Level) -> str:
    age = f", {level.age:.0f} s ago" if level.age >= 1 else ""
    match level.ok:
        case None:
            return "-"
        case True:
            return f"{(level.seconds or 0) * 1000:.2f} ms{age}"
        case _:
            return f"{level.text or 'no answer'}{age}"
