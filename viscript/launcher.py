# ruff: noqa: ARG002 - signatures that others build on; the bodies follow
"""All launches of a home: carries out what the supervisor decides and writes down what has become.

Adoption comes before any start: a launch whose process lives is taken over as it is, and what cannot be
proved dead is never started again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import time
from asyncio import TaskGroup
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path

from bus import keystore
from bus.errors import BusError, KeyFileError
from bus.identity import Address
from viscript import catalog, config, processes, supervisor
from viscript.config import Config, planning
from viscript.desk import Desk
from viscript.errors import Conflict, Denied, NotFound, ViscriptError
from viscript.generation import UNSEEN, Generation, Prepared
from viscript.home import Home
from viscript.membership import Membership
from viscript.meter import Meter
from viscript.processes import Fate
from viscript.recorder import Recorder, cause_of
from viscript.records import AdHoc, ExitInfo, Probed, Record
from viscript.rules import Plan
from viscript.state import Store
from viscript.supervisor import BROKER, FINAL, Exit, Launch, State, Supervisor

log = logging.getLogger(__name__)

MAX_ID_DIGITS = 15
LOOKS, PAUSE = 20, 0.05


@dataclass(frozen=True)
class Place:
    """What every launched program is told of where it is."""

    address: Address
    launcher: str  # the daemon's public key


class Launcher:
    """One owner of all launches. `changed` is called with every record that has changed."""

    def __init__(
        self, home: Home, settings: Config, store: Store, tasks: TaskGroup, place: Place,
        changed: Callable[[Record], None], desk: Desk,
    ) -> None:  # fmt: skip
        self.home = home
        self.config = settings
        self.store = store
        self.place = place
        self.membership: Membership | None = None
        self.recorder: Recorder | None = None
        self.meter = Meter()
        self.probed: dict[int, Probed] = {}  # by launch, what its probe said last
        self._cause = ""  # what is being handled, for the recorder
        self.desk = desk
        self.records: dict[int, Record] = {}  # live ones
        self._generations: dict[int, Generation] = {}
        self._tasks = tasks
        self._changed = changed
        self._supervisor = Supervisor(lambda: random.uniform(0.8, 1.2))  # noqa: S311
        self._timer: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()
        self._stamp = _stamp(settings.file)
        self._tidying: set[asyncio.Task[None]] = set()  # need the broker
        self._going_down = False

    # What commands ask for.

    def start(self, word: str, arguments: tuple[str, ...]) -> Record:
        """Begin a launch of the app called `word`; it has an id on return, or `ViscriptError`."""
        self._reread()
        return self._begin(catalog.find(self.config, word), arguments, None)

    def run(self, name: str, what: AdHoc) -> Record:
        """Begin a launch of a command that is in no configuration; `Conflict` when its name is."""
        self._reread()
        if name in self.config.apps:
            raise Conflict(f"{name} is an app in {self.config.file}; choose another --name")
        return self._begin(catalog.ad_hoc(name, what.argv, what.cwd), (), what)

    def app_of(self, record: Record) -> config.App:
        """What it was started as; `NotFound` when that is in the configuration no more."""
        if record.ad_hoc is not None:
            return catalog.ad_hoc(record.app, record.ad_hoc.argv, record.ad_hoc.cwd)
        return catalog.find(self.config, record.app)

    def _begin(self, app: config.App, arguments: tuple[str, ...], what: AdHoc | None) -> Record:
        if self._going_down:
            raise Conflict("everything is being stopped; nothing is started any more")
        catalog.command(self.config, app, arguments, _search())
        slot = self._free_slot(app.name)
        try:
            key = keystore.load_or_create(self.home.app_key(slot)).public
        except (KeyFileError, OSError) as error:
            raise Denied(str(error)) from None
        now = time.time()
        record = Record(
            id=0, app=app.name, state=State.BLOCKED, key=key, since=now, args=list(arguments),
            started=now, slot=slot, session=self.store.session, role=app.role,
            after=[after.app for after in app.after], on_bus=app.ready.kind == "bus",
            restart=app.restart.policy, ad_hoc=what,
        )  # fmt: skip
        self.records[self.store.add(record).id] = record
        self._feed(supervisor.Start(_launch(record)))
        return record

    def offered(self, word: str) -> catalog.Offered:
        """The app called `word` as roles and selectors see it; `NotFound`, `BadConfig`."""
        self._reread()
        return catalog.offered(catalog.find(self.config, word))

    def name_of(self, word: str) -> str:
        """The app that is called or aliased so, or that runs by that name; `NotFound`."""
        if any(record.app == word for record in self.records.values()):
            return word
        return catalog.find(self.config, word).name

    def resolve(self, word: str) -> Record:
        """The launch meant by an id, or by the name of an app that runs once."""
        if word.isdecimal():
            number = int(word) if len(word) <= MAX_ID_DIGITS else 0
            found = self.records.get(number) or self.store.get(number)
            if found is None:
                raise NotFound(f"no launch has the id {word}; see: viscript la --all")
            return found
        name = self.name_of(word)
        live = [record for record in self.records.values() if record.app == name]
        if not live:
            raise NotFound(f"{name} is not running; start it: viscript start {name}")
        if len(live) > 1:
            ids = ", ".join(str(record.id) for record in live)
            raise Conflict(f"{name} runs {len(live)} times; say which by its id: {ids}")
        return live[0]

    def stop(self, record: Record) -> None:
        self._feed(supervisor.Stop(record.id))

    def restart(self, record: Record) -> Record:
        """Begin a new generation of it; one that has ended is started anew, with a new id."""
        raise Conflict("not yet")

    def reload(self, record: Record) -> None:
        """Send the signal that makes it read its configuration again."""
        raise Conflict("not yet")

    def kill(self, record: Record, number: int) -> None:
        """Send a signal to all its processes; the restart rule decides on what follows."""
        raise Conflict("not yet")

    def scale(self, app: str, count: int) -> list[Record]:
        """Start or stop instances until there are `count`; returns those that are to remain or to come."""
        raise Conflict("not yet")

    def apply(self, plan: Plan, settings: Config) -> list[Record]:
        """Take over a configuration; returns what is started, stopped and started again."""
        raise Conflict("not yet")

    def dependants(self, record: Record) -> list[Record]:
        """What is stopped before it, as it needs it; in the order in which they stop."""
        return []

    def clear(self, record: Record) -> None:
        """No longer show what has failed."""

    def down(self) -> None:
        """Stop everything, dependents first, the broker last."""
        self._going_down = True
        self._feed(supervisor.Down())

    async def wait(self, finished: Callable[[], bool], timeout: float | None) -> bool:
        """Until `finished()`, looked at after every change; False when time is up."""
        try:
            async with asyncio.timeout(timeout):
                while not finished():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    @property
    def idle(self) -> bool:
        """Nothing is live, not even the broker."""
        return not self._supervisor.launches

    @property
    def broker(self) -> Launch | None:
        return self._supervisor.launches.get(BROKER)

    # The bus and the broker.

    def arrived(self, key: str | None) -> None:
        """`key` is on the bus; None: the daemon itself is, so the broker works."""
        if key is None:
            self._feed(supervisor.Ready(BROKER))
        for record in list(self.records.values()):
            if record.key == key:
                self._feed(supervisor.Ready(record.id))

    def start_broker(self) -> None:
        """Take over the broker that lives, or start one."""
        launch = Launch(BROKER, "broker", on_bus=True, restart="always")
        folder = self._folder(BROKER)
        if processes.look(folder)[0] is Fate.ENDED:
            processes.clear(folder)  # how an earlier one ended does not count against this one
        self._take_over(launch)

    def report(self, number: int) -> processes.Report | None:
        """What its keeper said last."""
        generation = self._generations.get(number)
        return generation.report if generation is not None else None

    @property
    def broker_pid(self) -> int | None:
        generation = self._generations.get(BROKER)
        return generation.pid if generation is not None else None

    # Adoption.

    def adopt(self) -> None:
        """Take over every launch that an earlier daemon left; before anything is started."""
        for record in self.store.live():
            self.records[record.id] = record
            self._take_over(_launch(record))

    def _take_over(self, launch: Launch) -> None:
        fate, report = processes.look(self._folder(launch.id))
        if report is None and fate is Fate.ENDED and launch.state in _NOT_BEGUN:
            self._feed(supervisor.Start(launch))
            return
        launch = replace(launch, generation=report.generation if report else launch.generation)
        generation = self._generation(launch.id, launch.generation)
        generation.report = report
        if fate is Fate.LEFT and report is not None:
            processes.sweep(report)
        elif fate is not Fate.ENDED:
            self._feed(supervisor.Adopt(launch))
            self._spawn(generation.follow(self._feed))
            return
        seen = report is not None and report.state == "gone"
        generation.asked = "" if seen else UNSEEN
        how = report.exit if report is not None and seen else Exit()
        self._feed(supervisor.Missed(launch, how))

    # The supervisor's actions.

    def _feed(self, event: supervisor.Event) -> None:
        if isinstance(event, supervisor.Exited | supervisor.Ended | supervisor.Missed):
            number = event.launch.id if isinstance(event, supervisor.Missed) else event.id
            if number in self.records:
                how = self._generations[number].how
                self.records[number].exit = ExitInfo.of(event.exit.code, event.exit.signal, how)
        self._cause = cause_of(event)
        self._carry_out(self._supervisor.handle(event, time.monotonic()))

    def _carry_out(self, actions: list[supervisor.Action]) -> None:
        for action in actions:
            match action:
                case supervisor.Spawn(number, count):
                    generation = self._generation(number, count)
                    self._spawn(generation.begin(self._prepare(number), self._feed))
                case supervisor.Terminate(number):
                    self._spawn(self._terminate(number))
                case supervisor.Changed(launch):
                    self._record(launch)
        self._arm()
        self._news.set()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._supervisor.next_timer()
        if due is not None:
            pause = max(0.0, due - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(pause, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._cause = None, "timer"
        self._carry_out(self._supervisor.handle_timer(time.monotonic()))

    def _record(self, launch: Launch) -> None:
        """Write down what has changed; a final state also ends what belongs to the launch."""
        record = self.records.get(launch.id)
        if record is None:  # the broker: nobody lists it
            log.info("the broker is %s %s", launch.state, launch.reason)
            if self.recorder is not None:
                self.recorder.broker_is(launch.state, launch.reason, self._cause)
            return
        before = record.state
        if record.state != launch.state:
            record.since = time.time()
            log.info("%s (ID %s) is %s %s", record.app, record.id, launch.state, launch.reason)
        record.state, record.reason = launch.state, launch.reason
        record.restarts, record.stop = launch.restarts, launch.stop
        record.generation, record.failures = launch.generation, launch.failures
        record.next_try = None
        if launch.state is State.BACKOFF and launch.deadline is not None:
            record.next_try = time.time() + launch.deadline - time.monotonic()
        generation = self._generations.get(launch.id)
        record.pid = generation.pid if generation is not None and launch.alive else None
        if launch.state in FINAL:
            record.ended = time.time()
            del self.records[launch.id]
            self._generations.pop(launch.id, None)
            tidying = self._spawn(self._tidy(record))
            self._tidying.add(tidying)
            tidying.add_done_callback(self._tidying.discard)
        self.store.save(record)
        if self.recorder is not None:
            self.recorder.changed(record, before, self._cause)
        self._changed(record)

    async def _tidy(self, record: Record) -> None:
        """Its key is no longer let in, its folder goes if nothing lives in it, old records go too."""
        if self.membership is not None and all(r.key != record.key for r in self.records.values()):
            await self.membership.shut_out(record.key)
        folder = self._folder(record.id)
        for _ in range(LOOKS):  # its keeper says that all is over just before it ends itself
            if processes.look(folder)[0] is Fate.ENDED:
                processes.clear(folder)
                break
            await asyncio.sleep(PAUSE)
        for old in self.store.prune():
            for path in self.home.logs.glob(f"{old.id}-*.log*"):
                path.unlink(missing_ok=True)

    async def _terminate(self, number: int) -> None:
        generation, record = self._generations.get(number), self.records.get(number)
        if generation is None:  # it has ended meanwhile
            return
        if number == BROKER and self._tidying:
            await asyncio.wait(self._tidying)

        async def ask() -> bool:
            if record is None or self.membership is None:
                return False
            return await self.membership.shut_down(record.key)

        await generation.terminate(ask)

    # Preparing a run.

    async def _prepare(self, number: int) -> Prepared:
        env = {k: v for k, v in os.environ.items() if not k.startswith("VISCRIPT_")}
        env["VISCRIPT_HOME"] = str(self.home.root)
        if number == BROKER:
            argv = (sys.executable, "-P", "-m", "bus.cli", "run", str(self.home.root))
            return argv, str(self.home.root), env
        record = self.records[number]
        app = self.app_of(record)
        command = catalog.command(self.config, app, tuple(record.args), _search())
        record.configured = planning.compact(app)
        if self.membership is None:
            raise Conflict("there is no bus to start it on")
        await self.membership.let_in(record)
        own = self.home.app_state(record.slot)
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        env |= command.env
        env |= {
            "VISCRIPT_RUN": str(self.home.run),
            "VISCRIPT_BROKER": self.place.address.endpoint,
            "VISCRIPT_BROKER_KEY": self.place.address.key,
            "VISCRIPT_KEY_FILE": str(self.home.app_key(record.slot)),
            "VISCRIPT_APP": record.app,
            "VISCRIPT_ID": str(record.id),
            "VISCRIPT_LAUNCHER": self.place.launcher,
            "VISCRIPT_STATE": str(own),
        }
        return command.argv, command.cwd or str(own), env

    def _reread(self) -> None:
        """Take over the config if its file has changed; a broken one is refused and changes nothing."""
        stamp = _stamp(self.config.file)
        if stamp != self._stamp:
            self.config = config.load(self.config.file)
            self._stamp = stamp

    def _generation(self, number: int, count: int) -> Generation:
        record = self.records.get(number)
        output = self.home.app_log(number, record.app) if record else self.home.broker_log
        ctl = self.keeper_socket(number)
        generation = Generation(number, count, self._folder(number), ctl, output)
        self._generations[number] = generation
        return generation

    def keeper_socket(self, number: int) -> Path:
        """Where the keeper of a launch takes orders."""
        return self.home.run / f"keeper-{number}.ctl"

    def _folder(self, number: int) -> Path:
        return self.home.launches / ("broker" if number == BROKER else str(number))

    def _free_slot(self, app: str) -> str:
        """app, app-2, …: the first that no live launch and no other app has."""
        taken = {record.slot for record in self.records.values()} | self.config.apps.keys() - {app}
        slot, number = app, 1
        while slot in taken:
            number += 1
            slot = f"{app}-{number}"
        return slot

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        return self._tasks.create_task(_guarded(work))


_NOT_BEGUN = frozenset({State.BLOCKED, State.BACKOFF, State.STARTING})


async def _guarded(work: Coroutine[None, None, None]) -> None:
    """A failure that is not ours ends one errand, not the daemon."""
    try:
        await work
    except (BusError, ViscriptError, TimeoutError) as error:
        log.warning("%s: %s", type(error).__name__, error)


def _launch(record: Record) -> Launch:
    return Launch(
        record.id, record.app, tuple(record.after), record.on_bus, record.restart,
        state=State(record.state), generation=record.generation, restarts=record.restarts,
        stop=record.stop,
    )  # fmt: skip


def _search() -> str:
    return os.environ.get("PATH", os.defpath)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
