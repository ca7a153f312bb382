"""The viscript daemon: one per home. Hosts the launcher, answers commands over the bus.

It holds nothing that its end would take along: apps and broker have keepers of their own. SIGTERM ends the
daemon alone; the next `viscript up` takes everything over as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from asyncio import TaskGroup
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bus import logs
from bus.errors import NotAuthorised, Unreachable
from bus.identity import Address
from viscript import catalog, descriptors, doors, endpoints, inforce, processes, strays
from viscript.autostart import Autostart
from viscript.cluster import files
from viscript.config import Config
from viscript.daemonoptions import Options, parse
from viscript.desk import Desk
from viscript.errors import BadConfig, Conflict, Denied, ViscriptError
from viscript.eventlog import EventLog
from viscript.home import PYTHON, DaemonLock
from viscript.jobstore import JobStore
from viscript.keeping import kernel
from viscript.launcher import Launcher
from viscript.membership import Membership
from viscript.nursery import nursery
from viscript.preparing import Place, inherited
from viscript.processes import Fate
from viscript.protocol import DaemonInfo, Event
from viscript.recorder import Recorder
from viscript.records import Record
from viscript.snapshot import Snapshots, names
from viscript.state import Store
from viscript.supervision.states import SETTLED, State
from viscript.telling import Teller, cause

if TYPE_CHECKING:
    from bus.client import Bus
    from viscript.cluster.member import Joined

log = logging.getLogger(__name__)

JOIN = 20.0  # seconds for the broker to come up
HEAD_START = 2.0  # seconds that apps have to begin, where nothing else waits to be done
REACH = 3.0  # seconds for that of another host, before what runs here goes on without
AWAY = "the cluster's broker at {} does not answer; what runs here does not wait, and joins it when it does"
DOWN = 90.0
SETTLE = 120.0


class Daemon:
    """Everything between the lock and the last process."""

    def __init__(self, options: Options, teller: Teller) -> None:
        self._options = options
        self._home = options.home
        self._teller = teller
        self._settings = _load(options, teller)
        self._store = Store(self._home.database)
        if not options.down and not self._store.is_up:
            nursery.prepare(catalog.beginning(self._settings.apps))
        if not options.down:
            strays.refuse(self._home, self._store)
        self._cold = False  # nothing lived when we began
        self._snapshots: Snapshots | None = None
        self._joined = files.load_membership(self._home)  # of another host's cluster
        self._member: Joined | None = None  # of it, on the bus
        keys = doors.own_keys(self._home, alone=self._joined is None)
        self._broker_key, self._key, self._owners = keys.broker, keys.daemon, keys.names
        self._reporting: Callable[[], None] = lambda: None  # to the first host of a cluster

    async def run(self) -> bool:
        """Until everything is down, or the daemon alone is told to end; True when it is to begin again."""
        again = False

        def hang_up() -> None:
            nonlocal again
            again = True
            ended.set()

        address = (
            Address(
                endpoints.choose(self._home, self._settings.endpoint, is_up=self._store.is_up),
                self._broker_key.public,
            )
            if self._joined is None
            else Address(self._joined.endpoint, self._joined.broker_key)
        )
        async with TaskGroup() as tasks:
            ended = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, ended.set)
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)
            work = tasks.create_task(self._work(address))
            waiting = tasks.create_task(ended.wait())
            await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                log.info(
                    "told to begin again; apps and broker go on"
                    if again
                    else "told to end; apps and broker go on, `viscript up` takes them over"
                )
            work.cancel()
            waiting.cancel()
        return again

    async def _work(self, address: Address) -> None:
        events = EventLog(self._home.events, socket.gethostname(), kernel.boot_id())
        recorder = Recorder(events)
        async with TaskGroup() as errands:
            jobs = JobStore(self._home.jobs)
            launcher = Launcher(
                self._home, self._settings, self._store, errands,
                Place(address, self._key.public, inherited(self._home)), self._changed, Desk(errands, jobs),
            )  # fmt: skip
            launcher.recorder = recorder
            self._snapshots = Snapshots(self._home, lambda: names(launcher))
            async with AsyncExitStack() as stack:
                try:
                    following = await self._come_up(launcher, stack, errands, recorder)
                    await launcher.wait(lambda: launcher.idle, None)
                except asyncio.CancelledError:
                    recorder.daemon_is("ended", "told to; broker and apps go on")
                    raise
                recorder.daemon_is("down")
                for task in following:
                    task.cancel()
                launcher.desk.close()
            self._snapshots.write()
        events.close()
        self._leave()

    async def _come_up(
        self, launcher: Launcher, stack: AsyncExitStack, errands: TaskGroup, recorder: Recorder
    ) -> list[asyncio.Task[None]]:
        """Take over or start what is to run; returns what follows the bus."""
        autostart = Autostart(launcher, self._tell)
        begun = await self._begin_cold(launcher, autostart, recorder)
        from viscript import title
        from viscript.resuming import act_of

        # Else `ps` shows the `up` from which we were forked.
        title.become("viscript-daemon", "viscript.daemon", "--home", str(self._home.root))
        bus = await self._join(launcher, stack)
        following: list[asyncio.Task[None]] = []
        if bus is not None:
            following += await self._take_part(bus, launcher, errands)
            self._answer(bus, launcher, recorder.events)
        if begun is None:
            recorder.daemon_is("up", f"pid {os.getpid()}")
            launcher.adopt()
        launcher.desk.resume(partial(act_of, launcher))
        away = bus is not None and not bus.connected
        if away and self._member is not None:
            later = self._catch_up(self._member, autostart)
            following.append(errands.create_task(later))
        await self._bring_up(launcher, autostart, begun, away=away)
        return following

    async def _begin_cold(
        self, launcher: Launcher, autostart: Autostart, recorder: Recorder
    ) -> list[Record] | None:
        """Where nothing lives, not even a broker to ask, its apps begin with it; None: something may live."""
        if self._options.down or not doors.is_cold(self._home, self._store, launcher.place.address):
            return None
        recorder.daemon_is("up", f"pid {os.getpid()}")
        self._cold = True
        self._store.begin(lasting=False)  # until its apps are written down, too
        begun = await autostart.begin(away=False, admit=launcher.are_let_in)
        waited_for = any(record.ready_probe.kind == "bus" for record in begun)
        if waited_for:
            await self._admit(begun, launcher)
            launcher.start_broker()
        # What hears and answers others is imported, and the disk waited for, when the apps are on their way.
        await launcher.wait(lambda: launcher.have_begun(begun), HEAD_START)
        self._store.make_lasting()
        if not waited_for:
            await self._admit(begun, launcher)
        return begun

    async def _admit(self, begun: list[Record], launcher: Launcher) -> None:
        try:
            await asyncio.to_thread(doors.let_in, self._home, begun)
        except Denied:
            await self._give_up(launcher)
            raise

    async def _give_up(self, launcher: Launcher) -> None:
        """There will be no broker: end what has begun, as if it had not."""
        launcher.down()
        await launcher.wait(lambda: launcher.idle, DOWN)
        if self._cold:
            self._store.finish()

    async def _take_part(
        self, bus: Bus, launcher: Launcher, errands: TaskGroup
    ) -> list[asyncio.Task[None]]:
        """Begin to follow the bus; in a cluster also what goes on in it."""
        people = [key for key, name in self._owners.items() if name != "viscript"]
        if self._joined is not None:
            command_line = next(key for key, name in self._owners.items() if name == "cli")
            from viscript.cluster.member import Joined

            self._member = member = Joined(bus, launcher.arrived, launcher, command_line)
            launcher.membership = member
            self._reporting = member.changed
            if not self._options.down:
                await member.numbered(JOIN if bus.connected else 0.0)
            return [errands.create_task(member.follow()), errands.create_task(member.attend())]
        from viscript.cluster.registrar import Registrar

        launcher.membership = membership = Membership(bus, launcher.arrived)
        following = errands.create_task(membership.follow())
        launcher.registrar = Registrar(bus, launcher, people, socket.gethostname())
        await launcher.registrar.begin()
        return [following]

    async def _join(self, launcher: Launcher, stack: AsyncExitStack) -> Bus | None:
        """The bus, with a broker of ours; None when we only take down and it is gone."""
        if self._joined is not None:
            from viscript.cluster.dialling import dial

            patience = REACH if self._options.down or self._store.numbers is not None else JOIN
            try:
                bus = await dial(launcher.place.address, self._key, stack, patience)
            except Denied:
                if self._options.down:
                    return None
                raise
            return bus if bus.connected or not self._options.down else None
        if self._options.down and processes.look(self._home.launches / "broker")[0] is Fate.ENDED:
            return None
        told = processes.end_of(self._home.broker_log)
        launcher.start_broker()
        from bus.client import connect

        deadline = time.monotonic() + (3.0 if self._options.down else JOIN)
        address, problem = launcher.place.address, ""
        while time.monotonic() < deadline:
            try:
                joining = connect(address, self._key, name="viscript", timeout=1.0)
                return await stack.enter_async_context(joining)
            except Unreachable as error:
                problem = str(error)
            except NotAuthorised as error:
                problem = f"{error}; does another program listen there?"
                break
            if launcher.broker is None or launcher.broker.failures:
                break
        if self._options.down:
            return None
        problem = (
            processes.complaint(self._home.broker_log, told) or problem or "it does not answer"
        )
        problem = f"the broker is not up: {problem}; its log: {self._home.broker_log}"
        await self._give_up(launcher)
        raise Conflict(problem)

    async def _bring_up(
        self, launcher: Launcher, autostart: Autostart, begun: list[Record] | None, *, away: bool
    ) -> None:
        if self._options.down:
            await strays.end(self._home, self._store)
            launcher.down()
            return
        if launcher.membership is not None:
            keys = list((self._home.keys / "apps").glob("*.key"))
            await launcher.membership.reconcile(launcher.records.values(), keys)
        if not self._store.is_up:
            self._store.begin()
        address = launcher.place.address
        info = DaemonInfo(
            os.getpid(), self._key.public, address.endpoint, address.key,
            str(self._settings.file), time.time(),
        )  # fmt: skip
        _write(self._home.daemon, msgspec.json.encode(info))
        if self._snapshots is not None:
            self._snapshots.changed()
        self._tell(
            Event("notice", text=AWAY.format(address.endpoint))
            if away
            else Event("broker", text=address.endpoint)
        )
        if begun is None:
            begun = await autostart.begin(away=away)
        launcher.keep_config()
        await launcher.wait(lambda: all(r.state in SETTLED for r in begun), SETTLE)
        well = {State.RUNNING, State.DEGRADED, State.EXITED}
        self._tell(Event("up", failed=[r.app for r in begun if r.state not in well]))

    async def _catch_up(self, member: Joined, autostart: Autostart) -> None:
        """Start what needs the bus, when the first host is there again."""
        await member.welcomed()
        await autostart.begin_rest()

    def _changed(self, record: Record) -> None:
        self._reporting()
        if self._snapshots is not None:
            self._snapshots.changed()
        self._tell(Event("launch", launch=record.status()))

    def _tell(self, event: Event) -> None:
        self._teller.tell(event)

    def _answer(self, bus: Bus, launcher: Launcher, events: EventLog) -> None:
        from viscript.announcing import Announcer
        from viscript.gate import Gate

        grant = self._joined.grant if self._joined is not None else "admin"
        Gate(launcher, self._home, self._owners, grant).open(bus)
        Announcer(bus, events, numbers_only=grant == "none")

    def _leave(self) -> None:
        """Everything has ended: leave state and logs, nothing else."""
        self._store.finish()
        self._store.close()
        with contextlib.suppress(OSError):  # nothing follows from it that is left
            self._home.daemon.unlink()
        for path in self._home.run.iterdir():
            with contextlib.suppress(OSError):
                path.unlink()
        with contextlib.suppress(OSError):
            self._home.run.rmdir()


def _load(options: Options, teller: Teller) -> Config:
    """The config; to take down what runs, none is needed."""

    def warn(text: str) -> None:
        log.error("%s", text)
        teller.tell(Event("warning", text=text))

    try:
        return inforce.load(options.home, options.config, warn)
    except BadConfig:
        if not options.down:
            raise
        return Config(options.config, {})


def _write(path: Path, text: bytes) -> None:
    temporary = path.with_suffix(".new")
    temporary.touch(mode=0o600)
    temporary.write_bytes(text + b"\n")
    temporary.replace(path)


def serve(options: Options) -> int:
    """Be the daemon of a home until everything is down or it is told to end; the exit code."""
    processes.keep_private()
    descriptors.raise_limit()
    logs.configure()
    teller = Teller(options.events)
    try:
        options.home.create()
        DaemonLock(options.home)  # until the process is gone: who finds it free finds nothing of us
        again = asyncio.run(Daemon(options, teller).run())
        if again:
            _begin_again(options, teller)
    except (ViscriptError, OSError, ExceptionGroup) as raised:
        error = cause(raised)
        log.error("%s", error)  # noqa: TRY400 - said to people, a traceback would not help
        teller.tell(Event("error", text=str(error), error=error.name))
        return error.exit_code
    return 0


def _begin_again(options: Options, teller: Teller) -> None:
    """Become the daemon that is installed now: the same process, heard by the same `up` if that listens."""
    nursery.close()
    processes.keep_no_longer_private()
    descriptors.lower_again()
    events = [] if teller.fd is None else ["--events", str(teller.fd)]
    words = ["--home", str(options.home.root), "--config", str(options.config), *events]
    os.execv(sys.executable, [*PYTHON, "-P", "-m", "viscript.daemon", *words])  # noqa: S606


if __name__ == "__main__":
    sys.exit(serve(parse(sys.argv[1:])))
