"""The first host of a cluster: admits hosts, lets their apps in for them, knows what they said last."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from msgspec import structs

from bus.errors import BusError
from bus.identity import is_key
from bus.listing import everything
from bus.signals import (
    ACCESS_LIST,
    ACCESS_PUT,
    ACCESS_REMOVE,
    ENROL_ACCEPT,
    ENROL_LIST,
    ENROL_REJECT,
    ENROL_TOKEN,
    SHUTDOWN,
    AccessEntries,
    AccessEntry,
    AccessKey,
    Done,
    Enrolment,
    EnrolmentAnswer,
    Enrolments,
    Token,
    TokenQuery,
    pack,
    unpack,
)
from viscript.cluster import files, talk
from viscript.cluster.files import Last
from viscript.cluster.numbers import Block, Numbers, after
from viscript.cluster.registry import APP_ROLES, Host, Invite, Registry, RoleName, name_of
from viscript.cluster.talk import App, Directory, Hello, HostInfo, Known, Report, Welcome
from viscript.errors import Conflict, Denied, Failed, ViscriptError
from viscript.protocol import refuse

if TYPE_CHECKING:
    from bus.client import Bus, Request
    from viscript.cluster.host import Launching

log = logging.getLogger(__name__)

T = TypeVar("T")
INVITED = 600.0  # seconds that an invitation is good for
SILENT = 15.0  # seconds after its last word a host counts as not reachable
SAVE_EVERY = 10.0  # seconds between two writes of what hosts said last
ASK_TIMEOUT = 3.0


class Registrar:
    """`people` are the keys of the first host's own command line.

    Requests come at once, so nothing is awaited between reading the registry and replacing it.
    """

    def __init__(self, bus: Bus, launcher: Launching, people: list[str], machine: str) -> None:
        self._bus = bus
        self._launcher = launcher
        self._people = people
        self._machine = machine
        self._home = launcher.home
        self._registry = files.load_registry(self._home)
        self.last: dict[str, Last] = files.load_last(self._home) if self._registry else {}
        self._saved = 0.0

    @property
    def registry(self) -> Registry | None:
        """None while nobody was ever invited."""
        return self._registry

    async def begin(self) -> None:
        """Serve those who belong, and put the access list right; nothing on a host that is alone."""
        if self._registry is None:
            return
        allowed = await self._allowed()
        for host in self._registry.hosts:
            if host.state == "revoked":
                for key in set(host.keys) & allowed.keys():
                    await self._shut_out(key)
            elif (entry := _people(host)) != allowed.get(host.people):
                await self._put(entry)
        await self._serve()
        store = self._launcher.store
        if store.numbers is None and (block := self._own_block()) is not None:
            store.set_numbers(
                Numbers((block,))
            )  # the database is a new one, its ids are long others'
        try:
            self._take(self._registry)
        except Failed as error:  # a full disk: everybody who belongs is known all the same
            log.warning("%s", error)

    async def _serve(self) -> None:
        hello = self._answering(Hello, self._hello)
        await self._bus.serve(talk.HELLO, hello)  # for who does not know our key yet
        answers: list[tuple[str, Callable[[Request], Awaitable[bytes]]]] = [
            (talk.HELLO, hello),
            (talk.REPORT, self._answering(Report, self._report)),
            (talk.NUMBERS, self._answering(Done, self._numbers)),
            (talk.ADMIT, self._answering(App, self._admit)),
            (talk.DISMISS, self._answering(App, self._dismiss)),
            (talk.END, self._answering(App, self._end)),
            (talk.HOSTS, self._answering(Done, self._hosts)),
        ]
        for subject, handler in answers:
            self._bus.answer(subject, handler)
        self._launcher.store.more_numbers = self._own_block

    def _answering(
        self, kind: type[T], act: Callable[[str, T], Awaitable[object]]
    ) -> Callable[[Request], Awaitable[bytes]]:
        async def answer(request: Request) -> bytes:
            try:
                return pack(await act(request.sender, unpack(request.body, kind)))
            except BusError as error:
                raise refuse(Failed(str(error))) from None
            except ViscriptError as error:
                raise refuse(error) from None

        return answer

    # What an admin asks for.

    async def invite(self, host: str, role: RoleName) -> Token:
        """A token for one host, which will be called `host` (empty: as it calls itself)."""
        invite = await self._promised(host, role)
        query = TokenQuery([talk.HOST_ROLE], invite.token, INVITED)
        return unpack(await self._bus.request(ENROL_TOKEN, pack(query)), Token)

    async def _promised(self, host: str, role: RoleName) -> Invite:
        registry = await self._begun()
        now = time.time()
        invite = Invite(f"host-{secrets.token_hex(4)}", host, role, now + INVITED)
        self._take(registry.with_invite(invite, now))
        return invite

    async def pending(self) -> list[Enrolment]:
        return unpack(await self._bus.request(ENROL_LIST), Enrolments).pending

    async def accept(self, enrolment: Enrolment, host: str, role: RoleName) -> None:
        """Admit a key that waits, as a host."""
        invite = await self._promised(host, role)
        answer = EnrolmentAnswer(enrolment.key, invite.token, [talk.HOST_ROLE])
        await self._bus.request(ENROL_ACCEPT, pack(answer))

    async def reject(self, enrolment: Enrolment) -> None:
        await self._bus.request(ENROL_REJECT, pack(EnrolmentAnswer(enrolment.key)))

    async def revoke(self, host: Host) -> None:
        """Cut it off: its daemon first, then its people and apps. What runs there goes on."""
        if self._registry is not None:
            self._take(self._registry.revoke(host))
        for key in host.keys:
            await self._shut_out(key)

    async def remove(self, host: Host) -> None:
        await self.revoke(host)
        if self._registry is not None:
            self._take(self._registry.remove(host))
        if self.last.pop(host.key, None) is not None:
            files.save_last(self._home, self.last)

    def state(self, host: Host) -> str:
        """For people: connected, unreachable or revoked."""
        if host.state == "revoked":
            return "revoked"
        membership = self._launcher.membership
        there = membership is not None and host.key in membership.online
        return "connected" if there and time.time() - host.seen < SILENT else "unreachable"

    # What hosts ask for. The sender's key is what the broker has verified.

    async def _hello(self, sender: str, hello: Hello) -> Welcome:
        allowed = await self._allowed()
        registry = await self._begun()
        entry = allowed.get(sender)
        if entry is None or talk.HOST_ROLE not in entry.roles:
            raise Denied(f"the key {sender} is not a host's; it joins with: viscript join")
        known = registry.by_key(sender)
        theirs = [] if known is None else known.keys
        if hello.people in allowed and hello.people not in theirs:
            raise Denied("the key of the host's command line is on the access list already")
        registry, host = registry.admit(sender, entry.name, hello.name, hello.people, time.time())
        self._take(registry.seen(sender, time.time()))
        await self._put(_people(host))
        if entry.name != host.name:
            await self._put(AccessEntry(sender, host.name, [talk.HOST_ROLE]))
        for old in set(theirs) - set(host.keys):
            await self._shut_out(old)
        return Welcome(host.name, self.directory())

    async def _report(self, sender: str, report: Report) -> Done:
        now = time.time()
        self._registry = self._member(sender).seen(sender, now)
        host = self._registry.accepted(sender)
        own = [x for x in report.launches[: talk.MAX_REPORT] if host.may_have(x.id)]
        self.last[sender] = Last(now, own)
        if now - self._saved > SAVE_EVERY:
            self._saved = now
            files.save_last(self._home, self.last)
        return Done()

    async def _numbers(self, sender: str, _: Done) -> Block:
        used = self._launcher.store.highest
        registry, block = self._member(sender).hand_out_to(sender, used)
        self._take(registry)
        return block

    async def _admit(self, sender: str, app: App) -> Done:
        if app.role not in APP_ROLES:
            roles = " and ".join(sorted(APP_ROLES))
            raise Denied(
                f"a host's apps may be {roles}, not {app.role[:40]!r}; run it on the first host"
            )
        if not is_key(app.key):
            raise Denied("what is to be let in is no key")
        allowed = await self._allowed()
        registry = self._member(sender)
        host = registry.accepted(sender)
        if app.key not in host.apps and app.key in allowed:
            raise Denied(f"the key {app.key} is on the access list already, not as this host's")
        self._take(
            registry.with_app(sender, app.key, app.slot)
        )  # first: what is in, is known whose
        name = f"{host.name}:{app.slot}"[:64]
        await self._put(AccessEntry(app.key, name if name.isprintable() else host.name, [app.role]))
        return Done()

    async def _dismiss(self, sender: str, app: App) -> Done:
        if app.key in self._member(sender).accepted(sender).apps:
            await self._shut_out(app.key)
            self._take(self._member(sender).without_app(sender, app.key))
        return Done()

    async def _end(self, sender: str, app: App) -> Done:
        if app.key not in self._member(sender).accepted(sender).apps:
            raise Denied(f"the key {app.key} is no app of this host")
        await self._bus.request(SHUTDOWN, to=app.key, timeout=ASK_TIMEOUT)
        return Done()

    async def _hosts(self, sender: str, _: Done) -> Directory:
        self._member(sender)
        return self.directory()

    # The registry, on disk and told to others.

    def directory(self) -> Directory:
        assert self._registry is not None  # noqa: S101 - for the type
        first = HostInfo(
            name=self._registry.name, key=self._launcher.place.launcher, people=self._people,
            role="admin", seen=time.time(),
        )  # fmt: skip
        others = [
            HostInfo(
                name=host.name, key=host.key, state=host.state, people=[host.people],
                role=host.role, seen=host.seen, ids=host.ids,
            )
            for host in self._registry.hosts
        ]  # fmt: skip
        return Directory([first, *others], self._registry.handed)

    def _member(self, sender: str) -> Registry:
        if self._registry is None:
            raise Denied("this host has invited nobody")
        self._registry.accepted(sender)
        return self._registry

    async def _begun(self) -> Registry:
        if self._registry is None:
            store = self._launcher.store
            own = after(store.highest)
            if store.numbers is None:
                store.set_numbers(Numbers((own,)))
            self._registry = Registry(name=name_of(self._machine), handed=own.last)
            files.save_registry(self._home, self._registry)
            await self._serve()
        return self._registry

    def _own_block(self) -> Block | None:
        if self._registry is None:
            return None
        registry, block = self._registry.hand_out(self._launcher.store.highest)
        self._take(registry)
        return block

    def _take(self, registry: Registry) -> None:
        self._registry = registry
        files.save_registry(self._home, registry)
        if not registry.hosts and files.load_known(self._home) is None:
            return
        directory = self.directory()
        if _same(self._launcher.directory, directory):
            return
        self._launcher.be_called(registry.name)
        self._launcher.directory = directory
        files.save_known(self._home, Known(registry.name, directory))
        try:
            self._bus.publish_nowait(talk.CHANGED)
        except BusError as error:  # hosts ask when they come back
            log.debug("not told: %s", error)

    async def _allowed(self) -> dict[str, AccessEntry]:
        entries = await everything(self._bus, ACCESS_LIST, AccessEntries)
        return {entry.key: entry for entry in entries.keys}

    async def _put(self, entry: AccessEntry) -> None:
        await self._bus.request(ACCESS_PUT, pack(entry))

    async def _shut_out(self, key: str) -> None:
        try:
            await self._bus.request(ACCESS_REMOVE, pack(AccessKey(key)))
        except BusError as error:
            if key in await self._allowed():
                raise Conflict(f"the key {key} is still let in: {error}; try again") from None


def _people(host: Host) -> AccessEntry:
    """What the broker lets its command line do."""
    rules = talk.people_rules(host.role)
    return AccessEntry(host.people, f"{host.name}-cli", [], rules, talk.NOT_FOR_PEOPLE)


def _same(before: Directory | None, now: Directory) -> bool:
    """But for when each was heard last."""
    return before is not None and _unheard(before) == _unheard(now)


def _unheard(directory: Directory) -> Directory:
    hosts = [structs.replace(host, seen=0) for host in directory.hosts]
    return structs.replace(directory, hosts=hosts)
