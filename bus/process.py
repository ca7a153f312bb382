"""Makes a launched program a participant that its launcher can ping, measure and shut down.

An asyncio program calls `run(main)`, any other `attach()`. Everything they need arrives in the
environment as paths and addresses, never a secret; `docs/protocol/process.md` has the list for
programs in other languages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import psutil

from bus import keystore, logs, signals
from bus.client import Bus, Request, connect
from bus.egress import Egress
from bus.errors import BusError, KeyFileError, NotAuthorised
from bus.identity import Address, KeyPair
from bus.signals import pack

log = logging.getLogger(__name__)

GRACE = 5.0  # seconds that `main` has to return once it is told to stop
FIRST_CONNECT = 30.0  # seconds; the broker may be restarting just now
EXIT_ENVIRONMENT = 8  # not launched as expected, or a key file that cannot be used
EXIT_BUS = 6  # the broker is not there or refuses our key


class EnvironmentProblem(BusError):
    """The environment lacks what a launched program needs."""


@dataclass(frozen=True)
class Environment:
    """What a launcher tells a program it starts."""

    address: Address
    key_file: Path
    app: str
    id: int | None
    launcher: str | None  # the launcher's public key
    home: Path
    run_dir: Path  # for sockets: its path is short
    state_dir: Path  # this program's own

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Environment:
        """From VISCRIPT_* variables; `EnvironmentProblem` names the one that is missing."""

        def need(name: str) -> str:
            try:
                return environment[name]
            except KeyError:
                raise EnvironmentProblem(
                    f"{name} is not set: this program is started by `viscript start`, "
                    "or by hand with the variables of docs/protocol/process.md"
                ) from None

        home = Path(environment.get("VISCRIPT_HOME", "."))
        identity = environment.get("VISCRIPT_ID", "")
        return cls(
            Address(need("VISCRIPT_BROKER"), need("VISCRIPT_BROKER_KEY")),
            Path(need("VISCRIPT_KEY_FILE")),
            environment.get("VISCRIPT_APP", "") or Path(sys.argv[0]).stem,
            int(identity) if identity.isdecimal() else None,
            environment.get("VISCRIPT_LAUNCHER") or None,
            home,
            Path(environment.get("VISCRIPT_RUN", home)),
            Path(environment.get("VISCRIPT_STATE", home)),
        )


@dataclass
class Participant:
    """A running program's place on the bus."""

    bus: Bus
    keypair: KeyPair = field(repr=False)
    environment: Environment
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def app(self) -> str:
        return self.environment.app

    @property
    def id(self) -> int | None:
        return self.environment.id

    @property
    def launcher(self) -> str | None:
        return self.environment.launcher

    @property
    def run_dir(self) -> Path:
        return self.environment.run_dir

    @property
    def state_dir(self) -> Path:
        return self.environment.state_dir


Main = Callable[[Participant], Awaitable[int | None]]


def run(main: Main, *, uvloop: bool = False, egress: Egress | None = None) -> NoReturn:
    """Join the bus, run `main` until it returns or is told to stop, and exit with its code.

    On `signal.shutdown`, SIGTERM or SIGINT `participant.stopping` is set; `main` has `GRACE` seconds to
    return and is then cancelled. Exits 8 when the environment or key file is unusable, 6 when the broker
    is not there or refuses the key; both say so on standard error. The connection belongs to `egress`.
    """
    logs.configure()
    try:
        environment = Environment.read(os.environ)
        keypair = keystore.load(environment.key_file)
        with asyncio.Runner(loop_factory=_loop_factory(fast=uvloop)) as runner:
            code = runner.run(_serve(main, environment, keypair, egress))
    except (EnvironmentProblem, KeyFileError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the program's own output
        code = EXIT_ENVIRONMENT
    except BusError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        code = EXIT_BUS
    sys.exit(code)


def raise_descriptor_limit() -> None:
    """Take as many descriptors as this process may have: for programs that hold some for each client."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _loop_factory(*, fast: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not fast:
        return None
    import uvloop

    return uvloop.new_event_loop


async def _serve(
    main: Main, environment: Environment, keypair: KeyPair, egress: Egress | None
) -> int:
    stopping = asyncio.Event()
    async with connect(
        environment.address, keypair, name=environment.app, timeout=FIRST_CONNECT,
        prepare=lambda bus: answer_signals(bus, stopping.set), egress=egress,
    ) as bus:  # fmt: skip
        participant = Participant(bus, keypair, environment, stopping)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, participant.stopping.set)
        return await _until_stopped(main, participant)


async def _until_stopped(main: Main, participant: Participant) -> int:
    work = asyncio.ensure_future(main(participant))  # noqa: TID251 - awaited below, in this scope
    stop = asyncio.ensure_future(participant.stopping.wait())  # noqa: TID251
    await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not work.done():
        await asyncio.wait({work}, timeout=GRACE)
    if not work.done():
        log.warning("did not stop within %s s, cancelling", GRACE)
        work.cancel()
        await asyncio.wait({work}, timeout=GRACE)
    if work.cancelled() or not work.done():
        return 0
    return work.result() or 0


def answer_signals(bus: Bus, stop: Callable[[], object]) -> None:
    """Answer ping, usage and shutdown; `stop` is called after the shutdown's answer was given."""
    process = psutil.Process()

    def ping(_request: Request) -> bytes:
        return pack(signals.Pinged(time.time()))

    def usage(_request: Request) -> bytes:
        with process.oneshot():
            times = process.cpu_times()
            return pack(
                signals.Usage(
                    cpu_seconds=times.user + times.system, rss=process.memory_info().rss,
                    threads=process.num_threads(), fds=process.num_fds(),
                    bus_in=bus.bytes_in, bus_out=bus.bytes_out,
                )
            )  # fmt: skip

    def shutdown(request: Request) -> bytes:
        log.info("shutdown asked for by %s", request.sender)
        asyncio.get_running_loop().call_later(0.02, stop)  # after the answer
        return pack(signals.ShuttingDown(os.getpid()))

    bus.answer(signals.PING, ping)
    bus.answer(signals.USAGE, usage)
    bus.answer(signals.SHUTDOWN, shutdown)


class Background:
    """The bus client of a synchronous program, in a daemon thread of its own."""

    def __init__(self, environment: Environment, keypair: KeyPair) -> None:
        self._environment = environment
        self._keypair = keypair
        self._ready = threading.Event()
        self._problem: BusError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._main, name="viscript-bus", daemon=True)

    def start(self) -> None:
        """Returns when the program is on the bus; raises what kept it off."""
        self._thread.start()
        self._ready.wait()
        if self._problem is not None:
            raise self._problem

    def close(self) -> None:
        """Say goodbye and end the thread."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=GRACE)

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BusError as error:
            self._problem = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        environment = self._environment
        async with connect(
            environment.address, self._keypair, name=environment.app, timeout=FIRST_CONNECT,
            prepare=lambda bus: answer_signals(bus, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        ):  # fmt: skip
            self._ready.set()
            await self._stop.wait()


def attach() -> Background:
    """Make this synchronous program a signal client; a shutdown arrives as SIGTERM.

    Raises `EnvironmentProblem`, `KeyFileError`, `NotAuthorised` or `Unreachable`.
    """
    environment = Environment.read(os.environ)
    background = Background(environment, keystore.load(environment.key_file))
    background.start()
    return background


__all__ = [
    "Background", "Environment", "EnvironmentProblem", "NotAuthorised", "Participant",
    "answer_signals", "attach", "run",
]  # fmt: skip
