"""`viscript run -- COMMAND`: a command as an app, though no configuration has it; ends with its exit code."""

from __future__ import annotations

import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from viscript.commands import elsewhere, follow, order, sd, start, wait
from viscript.errors import BadUsage, Unknown
from viscript.logfiles import Reader
from viscript.logplaces import Place
from viscript.output import note
from viscript.protocol import Step
from viscript.records import AdHoc, Status
from viscript.words import clean

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.desk import Outcome
    from viscript.home import Home
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.run"
ROUND = 0.2  # seconds between two looks at the output
MAX_WORDS = 4096


class Request(order.Request, kw_only=True):
    """Nothing is selected: `argv` is run in the folder `cwd`, called `name`."""

    name: str
    argv: list[str]
    cwd: str


async def handle(launcher: Launcher, request: Request, caller: Caller) -> order.Reply:
    from viscript.config.values import NAME
    from viscript.desk import Doing

    if known := order.repeated(launcher, request, caller):
        return known
    if not NAME.fullmatch(request.name):
        raise BadUsage(f"not a name for an app: {request.name[:80]!r}; choose one: --name")
    if not request.argv or len(request.argv) > MAX_WORDS:
        raise BadUsage(f"a command has between 1 and {MAX_WORDS} words")
    if any("\0" in word for word in (*request.argv, request.cwd)):
        raise BadUsage("no word of a command may hold a NUL character")
    record = launcher.run(request.name, AdHoc(request.argv, request.cwd))

    async def act(step: Step) -> Outcome:
        return await order.settled(launcher, step, record.id)

    doing = Doing(Step(record.app, id=record.id), f"id:{record.id}", act)
    return order.order(launcher, request, caller, "run", [doing])


def request_for(name: str | None, argv: list[str], cwd: Path) -> Request:
    """What is sent; a path is meant from `cwd`, a plain name from the daemon's PATH."""
    path = argv[0]
    if "/" in path:
        path = str(cwd / path)
    return Request(select=[], name=name or Path(path).name, argv=[path, *argv[1:]], cwd=str(cwd))


def detached(client: Client, request: Request, how: follow.How) -> None:
    follow.carry_out(client, SUBJECT, request, how, start.tell, one=True)


def foreground(home: Home, client: Client, request: Request) -> int:
    """Show what it prints until it ends; its exit code, or 128 and the signal. Ctrl-C shuts it down."""
    number, output = 0, None
    with ExitStack() as stack:
        try:
            with _uninterrupted():  # until it is known what is to be shut down
                number = _begin(client, request)
                output = _Output(_reader(home, client, number, request.name, stack))
            return _code(_until_ended(client, number, output))
        except KeyboardInterrupt:
            if output is None:
                raise
            note(f"shutting down {request.name} (ID {number})")
            again = stack.enter_context(client.renewed())
            output.renew(again)
            again.ask(sd.SUBJECT, sd.Request(select=[str(number)]), order.Reply)
            _until_ended(again, number, output)
            return 130


def _reader(
    home: Home, client: Client, number: int, name: str, stack: ExitStack
) -> Reader | elsewhere.Reader:
    if not client.host:
        return Reader(home.app_log(number, name))
    place = Place(Path(name), name, number, host=client.host)
    return elsewhere.Reader(elsewhere.Session(client, stack), place)


def _begin(client: Client, request: Request) -> int:
    request.request = secrets.token_hex(12)
    job = client.ask(SUBJECT, request, order.Reply).job
    if job is None or job.steps[0].id is None:
        raise Unknown("the daemon has begun nothing; see: viscript job ls")
    return job.steps[0].id


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C comes afterwards. By a handler: a mask counts for one thread, and zmq may have made others."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came and before is not signal.SIG_IGN:
        raise KeyboardInterrupt


def _until_ended(client: Client, number: int, output: _Output) -> Status:
    while True:
        request = wait.Request([number], "ended", ROUND)
        (status,) = client.ask(wait.SUBJECT, request, wait.Reply).launches
        output.show()
        if wait.reached(status.state, "ended"):
            output.end()
            return status


def _code(status: Status) -> int:
    if status.exit is None or (status.exit.code is None and status.exit.signal is None):
        note(f"{status.app} (ID {status.id}) is {status.state}: {status.reason}")
        return 1
    if status.exit.code is not None:
        return status.exit.code
    found = signal.Signals.__members__.get(status.exit.signal or "")
    return 128 + int(found or 0)


class _Output:
    """What was printed since the last look; remote text does not steer our terminal."""

    def __init__(self, reader: Reader | elsewhere.Reader) -> None:
        self._reader = reader
        self._raw = not sys.stdout.isatty()

    def show(self) -> None:
        for line in self._reader.lines():
            self._write(line.text + b"\n")
        sys.stdout.flush()

    def renew(self, client: Client) -> None:
        """Ask with this client, if anybody is asked."""
        if isinstance(self._reader, elsewhere.Reader):
            self._reader.session.renew(client)

    def end(self) -> None:
        """Also what has no end of line."""
        if isinstance(self._reader, elsewhere.Reader):
            self._reader.hurry()
        self.show()
        for line in self._reader.rest():
            self._write(line.text)
        self._reader.close()
        sys.stdout.flush()

    def _write(self, text: bytes) -> None:
        shown = text if self._raw else clean(text.decode(errors="replace")).encode()
        sys.stdout.buffer.write(shown)
