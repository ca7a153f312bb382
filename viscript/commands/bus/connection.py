"""Asking the broker and joining the bus; errors as a user reads them, with the exit codes of docs/cli.md."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Self, TypeVar

from bus.errors import (
    BusError,
    DeadlineExceeded,
    KeyFileError,
    LocalProtocolError,
    NotAuthorised,
    NoTopic,
    NotPresent,
    Refused,
    RemoteProtocolError,
    Unreachable,
)
from viscript.commands.bus.where import Where, here
from viscript.errors import (
    BadUsage,
    Conflict,
    Denied,
    Failed,
    NoDaemon,
    NotFound,
    Unknown,
    ViscriptError,
)
from viscript.words import one_line

if TYPE_CHECKING:
    from bus.client import Bus
    from bus.listing import Listed
    from bus.signals import PageQuery

T = TypeVar("T")
L = TypeVar("L", bound="Listed")
TIMEOUT = 5.0  # seconds for one answer
LOOK = 0.5  # seconds between two looks at the connection
NAME = "viscript bus"  # what the broker shows of our sessions


class Asking:
    """One short session for several requests: `with Asking(here()) as broker: broker.ask(…)`."""

    def __init__(self, place: Where, *, timeout: float = TIMEOUT) -> None:
        """`Denied` when our key file cannot be used."""
        from bus.caller import Caller

        self._place = place
        self._timeout = timeout
        self._caller = Caller(place.address, place.keypair(), name=NAME, timeout=timeout)

    def __enter__(self) -> Self:
        with translated(self._place):
            self._caller.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._caller.__exit__(*exc)

    def ask(self, subject: str, query: object, kind: type[T]) -> T:
        """The broker's answer; None as `query` is an empty body."""
        from bus.signals import pack, unpack

        body = b"" if query is None else pack(query)
        with translated(self._place):
            return unpack(self._caller.request(subject, body, timeout=self._timeout), kind)

    def ask_all(self, subject: str, kind: type[L], query: PageQuery | None = None) -> L:
        """All pages of the broker's answer in one."""
        from bus.listing import pages
        from bus.signals import PageQuery

        asking = pages(kind, query or PageQuery())
        body = next(asking)
        with translated(self._place):
            while True:
                answer = self._caller.request(subject, body, timeout=self._timeout)
                try:
                    body = asking.send(answer)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]


def ask(
    subject: str, query: object, kind: type[T], *, timeout: float = TIMEOUT, admin: bool = False
) -> T:
    """The broker's answer to one request; in a home, with `admin`, asked with the admin's key."""
    with Asking(here(admin=admin), timeout=timeout) as broker:
        return broker.ask(subject, query, kind)


def ask_all(subject: str, kind: type[L], *, timeout: float = TIMEOUT, admin: bool = False) -> L:
    """All that the broker lists; as `ask`."""
    with Asking(here(admin=admin), timeout=timeout) as broker:
        return broker.ask_all(subject, kind)


def attend(
    work: Callable[[Bus], Coroutine[None, None, T]],
    *,
    place: Where | None = None,
    fast: bool = False,
) -> T:
    """`work` as a participant; the connection heals by itself until it is done.

    `fast` takes the quicker event loop, which is worth its import only for much traffic. Being told to end
    (SIGTERM, SIGHUP) cancels `work`, as Ctrl-C does.
    """
    import asyncio
    import signal

    import typer

    from bus.client import connect

    found = place or here()
    keypair = found.keypair()
    tell_warnings()

    told: list[int] = []

    def end(number: int, task: asyncio.Task[T]) -> None:
        told.append(number)
        task.cancel()

    async def main() -> T:
        task: asyncio.Task[T] = asyncio.current_task()  # type: ignore[assignment]
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, end, number, task)
        async with connect(found.address, keypair, name=NAME) as bus, asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_watch(bus))
            result = await work(bus)
            watch.cancel()
        return result

    loop = None
    if fast:
        from uvloop import new_event_loop as loop  # type: ignore[assignment]
    with translated(found), asyncio.Runner(loop_factory=loop) as runner:
        try:
            return runner.run(main())
        except asyncio.CancelledError:
            raise typer.Exit(128 + told[0] if told else 1) from None


async def _watch(bus: Bus) -> None:
    """Tell when the connection is lost and when it is back; raise when our key is not let in again."""
    import asyncio

    from viscript.output import warn

    bus.on_reconnect(lambda: warn("the connection is back; what was published meanwhile is missed"))
    was_there = True
    while bus.refusal is None:
        await asyncio.sleep(LOOK)
        if was_there and not bus.connected:
            warn(f"the connection to {bus.address.endpoint} is lost; trying again")
        was_there = bus.connected
    raise bus.refusal


def tell_warnings() -> None:
    """What the bus logs goes to standard error, without what could steer a terminal."""
    import logging

    from viscript.output import warn

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warn(record.getMessage())

    logger = logging.getLogger("bus")
    if not logger.handlers:
        logger.addHandler(Teller(logging.WARNING))
        logger.propagate = False


@contextlib.contextmanager
def translated(place: Where) -> Iterator[None]:
    """Bus errors inside become what the command line shows, also out of a group of tasks."""
    try:
        yield
    except BaseExceptionGroup as group:
        first = _first(group)
        if isinstance(first, BusError):
            raise as_shown(first, place) from None
        raise first from None
    except BusError as error:
        raise as_shown(error, place) from None


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def as_shown(error: BusError, place: Where) -> ViscriptError:  # noqa: PLR0911 - a table
    """The error as a user reads it: with the place, and a way out."""
    match error:
        case NotAuthorised():
            way = "an admin changes that: viscript bus keys allow --help"
            return Denied(f"{error} ({place.name}); {way}")
        case KeyFileError():
            return Denied(f"{error} ({place.name})")
        case NotPresent() | NoTopic():
            return NotFound(str(error))
        case DeadlineExceeded():
            return Unknown(f"{error}: it may have happened or not")
        case Unreachable():
            return NoDaemon(f"{error} ({place.name}); {place.remedy}")
        case LocalProtocolError():
            return BadUsage(str(error))
        case Refused() | RemoteProtocolError():
            return _numbered(error, place)
        case _:
            return Failed(str(error))


def _numbered(error: Refused | RemoteProtocolError, place: Where) -> ViscriptError:
    kinds: dict[int, type[ViscriptError]] = {
        403: Denied, 404: NotFound, 408: Unknown, 409: Conflict, 503: NoDaemon,
    }  # fmt: skip
    if isinstance(error, RemoteProtocolError):  # by the broker: it is what was typed that is wrong
        kinds |= {400: BadUsage, 413: BadUsage}
    text = one_line(f"{error.err}: {error}")  # of whoever answered
    return kinds.get(error.code, Failed)(f"{text} ({place.name})")
