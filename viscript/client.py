"""The command line's way to the daemon of a home: blocking, no asyncio."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from bus.errors import (
    BusError,
    DeadlineExceeded,
    KeyFileError,
    NotAuthorised,
    NotPresent,
    Refused,
    Unreachable,
)
from viscript.errors import Denied, Failed, NoDaemon, NotFound, Unknown, ViscriptError
from viscript.home import Home, is_locked
from viscript.protocol import DaemonInfo, accept

if TYPE_CHECKING:
    from viscript.cluster.talk import HostInfo, Known

T = TypeVar("T")
WAIT = 5.0  # seconds for an answer, and for who is just coming back
HOSTS_WAIT = 2.0  # seconds for the answers of all hosts; who is gone is known at once
RETRY = 0.1


def daemon_info(home: Home) -> DaemonInfo:
    """What the running daemon says of itself; `NoDaemon` when there is none."""
    start = "start it: viscript up"
    if not is_locked(home.lock):
        if home.daemon.exists():
            raise NoDaemon(
                f"{home.root}: the daemon has ended without `viscript down`; its apps may still run; "
                "take them over: viscript up"
            )
        raise NoDaemon(f"{home.root}: no daemon is running; {start}")
    try:
        return msgspec.json.decode(home.daemon.read_bytes(), type=DaemonInfo)
    except FileNotFoundError:
        raise NoDaemon(f"{home.root}: the daemon is just starting or ending; try again") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise NoDaemon(f"{home.daemon}: cannot be read: {error}; run: viscript up") from None


def last_config(home: Home) -> str | None:
    """What the daemon uses that runs or was killed; None after `viscript down`."""
    try:
        return msgspec.json.decode(home.daemon.read_bytes(), type=DaemonInfo).config
    except (OSError, msgspec.MsgspecError):
        return None


class Client:
    """One session with the daemon: `with Client(home) as client: client.ask(…)`."""

    def __init__(self, home: Home, patience: float = WAIT) -> None:
        """`patience`: seconds for the broker. `NoDaemon`, or `Denied` when our key file cannot be used."""
        from bus import keystore
        from bus.identity import Address

        self.info = daemon_info(home)
        try:
            self._keypair = keystore.load(home.keys / "cli.key")
        except KeyFileError as error:
            raise Denied(str(error)) from None
        self._address = Address(self.info.endpoint, self.info.broker_key)
        self.home = home
        self._patience = patience
        self.asks = self.info.key  # whose daemon is asked
        self.host = ""  # the name of its host, if that is another

    @cached_property
    def known(self) -> Known | None:
        """The hosts of the cluster, as our daemon has learned of them; None on a host that is alone."""
        if not (
            self.home.root / "state" / "known-hosts.json"
        ).exists():  # before anything is imported
            return None
        from viscript.cluster import files

        return files.load_known(self.home)

    def at(self, host: HostInfo) -> Client:
        """The same session, asking the daemon of another host."""
        other = copy(self)
        other.asks = host.key
        other.host = host.name if host.key != self.info.key else ""
        return other

    def renewed(self) -> Client:
        """The same questions in a session of its own: one in which Ctrl-C came is not gone on with."""
        return copy(self)

    def at_named(self, name: str) -> Client:
        """The same session, asking the daemon of the host called so; `NotFound`."""
        hosts = [] if self.known is None else self.known.directory.accepted
        for host in hosts:
            if host.name == name:
                return self.at(host)
        raise NotFound(f"no host is called {name!r}; see: viscript host ls")

    def for_app(self, word: str) -> tuple[Client, str]:
        """`HOST:APP` is APP there; any other word is for our own daemon, as is an id that is its."""
        host, colon, app = word.partition(":")
        known = [] if self.known is None or not colon else self.known.directory.accepted
        for each in known:
            if each.name == host:
                return self.at(each), app
        return self, word

    def at_first(self) -> None:
        """From now on ask the first host's daemon, which knows of the others."""
        if self.known is not None:
            self.asks = self.known.directory.first.key

    def __enter__(self) -> Self:
        """Connect; a broker that is just coming back is waited for. `NoDaemon`, `Denied`."""
        from bus.caller import Caller

        deadline = time.monotonic() + self._patience
        while True:
            caller = Caller(self._address, self._keypair, name="cli", timeout=1.0)
            try:
                self._caller = caller.__enter__()
            except Unreachable as error:
                if time.monotonic() >= deadline:
                    raise _translated(error) from None
                time.sleep(RETRY)
            except BusError as error:
                raise _translated(error) from None
            else:
                return self

    def __exit__(self, *exc: object) -> None:
        self._caller.__exit__(*exc)

    def ask(self, subject: str, request: object, kind: type[T], timeout: float = WAIT) -> T:
        """The daemon's answer to a command; waits for one that is just coming back to the bus."""
        deadline = time.monotonic() + WAIT
        while True:
            try:
                return self.ask_participant(self.asks, subject, request, kind, timeout)
            except NotPresent:  # so nobody has heard the request
                if time.monotonic() >= deadline:
                    raise self._absent() from None
                time.sleep(RETRY)

    def _absent(self) -> NoDaemon:
        if self.asks == self.info.key or self.known is None:
            return NoDaemon("the daemon is not on the bus; see: viscript status")
        names = [host.name for host in self.known.directory.hosts if host.key == self.asks]
        return NoDaemon(
            f"{', '.join(names) or 'the host'} cannot be reached: its daemon is not on the bus; see: "
            "viscript host ls"
        )

    def ask_hosts(
        self, subject: str, asked: Sequence[tuple[HostInfo, object]], kind: type[T],
        timeout: float = HOSTS_WAIT,
    ) -> dict[str, T | ViscriptError]:  # fmt: skip
        """What the daemon of each host answers, or why it does not, by its key; all at once."""
        hosts = [host for host, _ in asked]
        bodies = {host.key: msgspec.msgpack.encode(request) for host, request in asked}
        try:
            found = self._caller.request_all(subject, bodies, timeout=timeout)
        except BusError as error:
            raise _translated(error) from None
        answers: dict[str, T | ViscriptError] = {}
        for host in hosts:
            answer = found[host.key]
            if isinstance(answer, Refused):
                answers[host.key] = accept(answer.err, f"{host.name}: {answer}")
            elif isinstance(answer, BusError):
                answers[host.key] = NoDaemon(f"{host.name} cannot be reached: {answer}")
            else:
                try:
                    answers[host.key] = msgspec.msgpack.decode(answer, type=kind)
                except msgspec.MsgspecError as error:
                    answers[host.key] = Failed(f"{host.name} is not understood: {error}")
        return answers

    def ask_broker(self, subject: str, body: bytes, timeout: float = WAIT) -> bytes:
        """The broker's own answer; `BusError`."""
        return self._caller.request(subject, body, timeout=timeout)

    def ask_participant(
        self, key: str, subject: str, request: object, kind: type[T], timeout: float = WAIT
    ) -> T:
        """Any participant's answer; `NotPresent`, other errors as a user reads them."""
        try:
            body = self._caller.request(
                subject, msgspec.msgpack.encode(request), to=key, timeout=timeout
            )
            return msgspec.msgpack.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise Failed(f"{subject}: the answer is not understood: {error}") from None
        except NotPresent:
            raise
        except BusError as error:
            raise _translated(error) from None


def _translated(error: BusError) -> ViscriptError:
    match error:
        case NotAuthorised():
            return Denied(f"{error}; an operator allows it: bus-broker allow")
        case DeadlineExceeded():
            return Unknown(
                f"{error}: what was asked for may have happened or not; see: viscript la"
            )
        case Unreachable():
            return NoDaemon(f"{error}; see: viscript status")
        case Refused():
            return accept(error.err, str(error))
        case _:
            return Failed(str(error))
