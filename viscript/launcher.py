"""What can be asked of the launches of a home: start, stop, restart, reload, kill, scale, take down.

Adoption comes before any start: a launch whose process lives is taken over as it is, and what cannot be
proved dead is never started again.
"""

from __future__ import annotations

import time
from asyncio import TaskGroup
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from viscript import catalog, config, inforce, preparing, processes
from viscript.appkeys import AppKeys
from viscript.config import App, Config, planning
from viscript.desk import Desk
from viscript.engine import Engine, launch_of
from viscript.errors import Conflict, Failed, NotFound
from viscript.home import Home
from viscript.membership import Membership
from viscript.meter import Meter
from viscript.preparing import Place, Prepared
from viscript.recorder import Recorder
from viscript.records import AdHoc, Probed, Record
from viscript.rules import Probe, RestartRule
from viscript.state import Store
from viscript.supervision import events
from viscript.supervision.launch import BROKER, Launch
from viscript.supervision.states import State

if TYPE_CHECKING:
    from viscript.cluster.registrar import Registrar
    from viscript.cluster.talk import Directory

MAX_ID_DIGITS = 15


class Launcher:
    """One owner of all launches. `changed` is called with every record that has changed."""

    def __init__(
        self, home: Home, settings: Config, store: Store, tasks: TaskGroup, place: Place,
        changed: Callable[[Record], None], desk: Desk,
    ) -> None:  # fmt: skip
        self.home = home
        self.config = self.applied = settings  # `start` may read a later one
        self.store = store
        self.place = place
        self.meter = Meter()
        self._keys = AppKeys(tasks)
        self.desk = desk
        self.probed: dict[int, Probed] = {}  # by launch, what its probe said last
        self._engine = Engine(
            home, store, tasks, self._prepare, self._program, changed, self.probed
        )
        self.records = self._engine.records  # live ones
        self._stamp = _stamp(settings.file)
        # Of a cluster; a host that is alone has no name.
        self.host = ""
        self.directory: Directory | None = None
        self.registrar: Registrar | None = None  # on the first host

    def be_called(self, host: str) -> None:
        """From now on this host has a name in a cluster."""
        self.host = host
        for record in self.records.values():
            record.host = host
        if self.recorder is not None:
            self.recorder.events.host = host

    @property
    def membership(self) -> Membership | None:
        return self._engine.membership

    @membership.setter
    def membership(self, membership: Membership) -> None:
        self._engine.membership = membership

    @property
    def recorder(self) -> Recorder | None:
        return self._engine.recorder

    @recorder.setter
    def recorder(self, recorder: Recorder) -> None:
        self._engine.recorder = recorder

    # What there is.

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
        """The launch meant by an id, by APP:INSTANCE, or by the name of an app that runs once."""
        if word.isdecimal():
            number = int(word) if len(word) <= MAX_ID_DIGITS else 0
            found = self.records.get(number) or self.store.get(number)
            if found is None:
                raise NotFound(f"no launch has the id {word}; see: viscript la --all")
            return found
        name, _, instance = word.rpartition(":") if ":" in word else (word, "", "")
        name = self.name_of(name)
        live = [x for x in self.records.values() if x.app == name]
        live = [x for x in live if not instance or str(x.instance) == instance]
        if not live:
            raise NotFound(f"{word} is not running; start it: viscript start {name}")
        if len(live) > 1:
            ids = ", ".join(str(record.id) for record in live)
            raise Conflict(f"{word} runs {len(live)} times; say which by its id: {ids}")
        return live[0]

    def failed(self) -> list[Record]:
        """What has failed and ended, until it is cleared or its slot is used again."""
        return self.store.failed()

    @property
    def outcomes(self) -> Mapping[str, bool]:
        """Of apps that have ended: whether they did so well."""
        return self._engine.supervisor.outcomes

    def dependants(self, record: Record, others: Iterable[Record] = ()) -> list[Record]:
        """What is stopped before it, as it needs it, if `others` stop as well; in the order of that."""
        found = self._engine.supervisor.dependants(record.id, [other.id for other in others])
        return [self.records[launch.id] for launch in found if launch.id in self.records]

    # Starting.

    def start(self, word: str, arguments: tuple[str, ...]) -> Record:
        """Begin a launch of the app called `word`; it has an id on return, or `ViscriptError`."""
        self._reread()
        app = catalog.find(self.config, word)
        return self._start(app, self._free_instance(app.name), arguments)

    def begin(self, word: str, arguments: tuple[str, ...]) -> list[Record]:
        """Begin all instances of an app that do not run, at least one more."""
        self._reread()
        app = catalog.find(self.config, word)
        runs = {record.instance for record in self.records.values() if record.app == app.name}
        free = [x for x in range(app.instances) if x not in runs]
        return [self._start(app, x, arguments) for x in free or [self._free_instance(app.name)]]

    def run(self, name: str, what: AdHoc) -> Record:
        """Begin a launch of a command that is in no configuration; `Conflict` when its name is."""
        self._reread()
        if name in self.config.apps:
            raise Conflict(f"{name} is an app in {self.config.file}; choose another --name")
        app = catalog.ad_hoc(name, what.argv, what.cwd)
        return self._start(app, self._free_instance(name), (), what)

    def app_of(self, record: Record) -> App:
        """What it was started as; `NotFound` when that is in the configuration no more."""
        if record.ad_hoc is not None:
            return catalog.ad_hoc(record.app, record.ad_hoc.argv, record.ad_hoc.cwd)
        return catalog.find(self.config, record.app)

    def _start(
        self, app: App, instance: int, arguments: tuple[str, ...], what: AdHoc | None = None
    ) -> Record:
        if self._engine.going_down:
            raise Conflict("everything is being stopped; nothing is started any more")
        catalog.command(self.config, app, arguments, preparing.search())
        slot = self._slot(app.name, instance)
        key = self._keys.public(self.home.app_key(slot))
        now = time.time()
        record = Record(
            id=0, app=app.name, state=State.BLOCKED, key=key, since=now, args=list(arguments),
            started=now, slot=slot, session=self.store.session, role=app.role, instance=instance,
            ad_hoc=what, host=self.host,
        )  # fmt: skip
        self._rule(record, app)
        for old in self.store.failed():
            if old.slot == slot:
                self.clear(old)
        self.records[self.store.add(record).id] = record
        self._engine.feed(events.Start(launch_of(record)))
        return record

    def _rule(self, record: Record, app: App) -> None:
        """Give it the rules that the configuration has for it."""
        own = preparing.for_instance(app, record.instance)
        record.after, record.groups = own.after, own.groups
        record.ready_probe, record.alive_probe = own.ready, own.alive
        record.restart, record.stops, record.reload = own.restart, own.stop, own.reload

    # What is asked of one launch.

    def stop(self, record: Record, *, force: bool = False) -> list[Record]:
        """Stop it, and before it what needs it; returns all these. `force`: KILL at once."""
        stopped = [*self.dependants(record), record]
        self._engine.feed(events.Stop(record.id, force))
        return stopped

    def restart(self, record: Record) -> Record:
        """Begin a new generation of it; one that has ended is started anew, with a new id."""
        if self._engine.going_down:
            raise Conflict("everything is being stopped; nothing is started any more")
        self._reread()
        app = self.app_of(record)
        catalog.command(self.config, app, tuple(record.args), preparing.search())
        if not record.live:
            free = all(x.slot != record.slot for x in self.records.values())
            instance = record.instance if free else self._free_instance(app.name)
            return self._start(app, instance, tuple(record.args), record.ad_hoc)
        self._update(record, app)
        self._engine.feed(events.Again(record.id))
        return record

    def reload(self, record: Record) -> None:
        """Send the signal that makes it read its configuration again."""
        if record.reload is None:
            raise Conflict(
                f"{record.app} has no signal for it; put `reload: HUP` into its entry, "
                f"or run: viscript restart {record.id}"
            )
        self.kill(record, record.reload)

    def kill(self, record: Record, number: int) -> None:
        """Send a signal to all its processes; the restart rule decides on what follows."""
        generation = self._engine.generation(record.id)
        if record.pid is None or generation is None:
            raise Failed(f"{record.app} (ID {record.id}) is {record.state}: nothing of it runs")
        if not generation.signal(number):
            raise Failed(
                f"{record.app} (ID {record.id}): its keeper does not answer just now; try again"
            )

    def clear(self, record: Record) -> None:
        """No longer show what has failed and ended."""
        record.cleared = True
        self.store.save(record)

    # What is asked of many.

    def scale(self, app: str, count: int) -> list[Record]:
        """Start or stop instances until there are `count`; returns those that are to remain or to come."""
        self._reread()
        entry = catalog.find(self.config, app)
        live = sorted(
            (x for x in self.records.values() if x.app == entry.name and not x.stop),
            key=lambda x: x.instance,
        )
        for record in live[count:]:
            self.stop(record)
        taken = {x.instance for x in self.records.values() if x.app == entry.name}
        free = [x for x in range(count + len(taken)) if x not in taken]
        begun = [self._start(entry, x, ()) for x in free[: max(0, count - len(live))]]
        return [*live[:count], *begun]

    def adopt_rules(self, settings: Config, apps: Iterable[str]) -> None:
        """Take over a configuration; of `apps` also the rules of ours that count while they run."""
        self.config = self.applied = settings
        self._stamp = _stamp(settings.file)
        self.keep_config()
        names = set(apps)
        for record in list(self.records.values()):
            if record.app in names and record.app in settings.apps:
                self._update(record, settings.apps[record.app])

    def _update(self, record: Record, app: App) -> None:
        """Rules of ours that count from now on, while it runs."""
        self._rule(record, app)
        self.store.save(record)
        self._engine.feed(events.Update(launch_of(record)))

    def down(self) -> None:
        """Stop everything, dependants first, the broker last."""
        self._engine.going_down = True
        self._engine.feed(events.Down())

    async def wait(self, finished: Callable[[], bool], timeout: float | None) -> bool:
        """Until `finished()`, looked at after every change; False when time is up."""
        return await self._engine.wait(finished, timeout)

    @property
    def idle(self) -> bool:
        """Nothing is live, not even the broker, and nothing is to be any more."""
        return self._engine.going_down and not self._engine.supervisor.launches

    # The bus and the broker.

    def are_let_in(self, records: list[Record]) -> None:
        """The broker comes up with their keys: their first runs need not wait for it."""
        self._engine.known |= {record.key for record in records}

    def arrived(self, key: str | None) -> None:
        """`key` is on the bus; None: the daemon itself is, so the broker works."""
        if key is None:
            self._engine.feed(events.Ready(BROKER))
        for record in list(self.records.values()):
            if record.key == key and record.ready_probe.kind == "bus":
                self._engine.feed(events.Ready(record.id))

    def have_begun(self, records: Iterable[Record]) -> bool:
        """Whether none of these is about to begin: they run, wait for something else, or it was no good."""
        return self._engine.have_begun(records)

    def start_broker(self) -> None:
        """Take over the broker that lives, or start one; nothing, where that was done."""
        if self.broker is not None:
            return
        launch = Launch(BROKER, "broker", ready=Probe("bus"), restart=RestartRule("always"))
        folder = self.home.launches / "broker"
        if processes.look(folder)[0] is processes.Fate.ENDED:
            processes.clear(folder)  # how an earlier one ended does not count against this one
        self._engine.take_over(launch)

    @property
    def broker(self) -> Launch | None:
        return self._engine.supervisor.launches.get(BROKER)

    @property
    def broker_pid(self) -> int | None:
        generation = self._engine.generation(BROKER)
        return generation.pid if generation is not None else None

    def report(self, number: int) -> processes.Report | None:
        """What its keeper said last."""
        generation = self._engine.generation(number)
        return generation.report if generation is not None else None

    def keeper_socket(self, number: int) -> Path:
        """Where the keeper of a launch takes orders."""
        return self._engine.keeper_socket(number)

    # Adoption.

    def adopt(self) -> None:
        """Take over every launch that an earlier daemon left; before anything is started."""
        live = self.store.live()
        for app in {needed.app for x in live for needed in x.after if needed.until == "completed"}:
            last = self.store.last_of(app)
            ended = last is not None and last.session == self.store.session and not last.live
            if ended and last is not None and last.state == State.EXITED and not last.stop:
                self._engine.feed(events.Completed(app))
        self.records |= {record.id: record for record in live}
        for record in live:
            record.host = self.host
        for record in live:
            self._engine.take_over(launch_of(record))

    # Preparing a run.

    async def _prepare(self, number: int) -> Prepared:
        if number != BROKER:
            record = self.records[number]
            app = self.app_of(record)
            files = catalog.fingerprint(self.config, app)
            record.configured, record.role = planning.compact(app, files), app.role
            await self._engine.let_in(record)
        return self._program(number)

    def _program(self, number: int) -> Prepared:
        if number == BROKER:
            return preparing.broker(self.home)
        record = self.records[number]
        return preparing.program(self.home, self.config, self.place, record, self.app_of(record))

    def _reread(self) -> None:
        """Take over the config if its file has changed; a broken one is refused and changes nothing."""
        stamp = _stamp(self.config.file)
        if stamp != self._stamp:
            self.config = config.load(self.config.file)
            self._stamp = stamp
            self.keep_config()

    def keep_config(self) -> None:
        """For the next daemon, unless the file is another by now."""
        if not self.config.is_kept and self._stamp == _stamp(self.config.file):
            inforce.keep(self.home, self.config.file)

    def _free_instance(self, app: str) -> int:
        """The first that no live launch has."""
        taken = {record.instance for record in self.records.values() if record.app == app}
        return next(number for number in range(len(taken) + 1) if number not in taken)

    def _slot(self, app: str, instance: int) -> str:
        """Whose key and folder it has: app, app-2 and so on, unless another app is called so."""
        plain = f"{app}-{instance + 1}" if instance else app
        others = {record.slot for record in self.records.values() if record.app != app}
        taken = others | (self.config.apps.keys() - {app})
        return f"{app}:{instance}" if plain in taken else plain


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
