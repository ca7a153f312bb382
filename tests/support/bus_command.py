"""`viscript bus …` as a user types it, with a context for each key of a broker."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bus.caller import Caller
from bus.errors import NotPresent
from bus.signals import SESSIONS, Sessions, SessionsQuery, pack, unpack
from tests.support.broker import PATIENCE, Broker, until
from viscript.contexts import Context, Contexts

COMMAND = [sys.executable, "-P", "-m", "viscript.cli"]


class BusCommand:
    """Commands of one user, whose configuration and home are below `folder`."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self.broker = broker
        self.contexts = Contexts(folder / "config" / "viscript")
        kept = {k: v for k, v in os.environ.items() if not k.startswith("VISCRIPT_")}
        self.environment = {
            **kept,
            "XDG_CONFIG_HOME": str(folder / "config"),
            "VISCRIPT_HOME": str(folder / "home"),
            "COLUMNS": "200",
        }
        for name in broker.keys:
            self.know(name)

    def know(self, name: str) -> None:
        """Make a context with the key of this participant of the broker."""
        address, file = self.broker.address, str(self.broker.folder / f"{name}.key")
        self.contexts.save(name, Context(address.endpoint, address.key, file), replace=True)

    def raw(self, *arguments: str, code: int | None = 0, **more) -> subprocess.CompletedProcess:
        """Any command; its exit code must be `code`, unless that is None. Bytes in and out."""
        done = subprocess.run(
            [*COMMAND, *arguments], env=self.environment, capture_output=True, timeout=50,
            check=False, **more,
        )  # fmt: skip
        assert code is None or done.returncode == code, (arguments, done)
        return done

    def run(
        self, by: str, *arguments: str, code: int | None = 0, **more
    ) -> subprocess.CompletedProcess:
        """`viscript bus --context BY …`, as text."""
        return self.raw("bus", "--context", by, *arguments, code=code, text=True, **more)

    def ask(self, by: str, *arguments: str, **more):
        return json.loads(self.run(by, *arguments, "--json", **more).stdout)

    @contextmanager
    def running(self, by: str, *arguments: str) -> Iterator["Running"]:
        """A command that goes on; it is killed at the end if it still runs."""
        process = subprocess.Popen(
            [*COMMAND, "bus", "--context", by, *arguments], env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        running = Running(process)
        try:
            yield running
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def session_of(self, by: str, **least: int) -> None:
        """Wait until a session of this participant has so many subscriptions or services."""
        keys = self.broker.keys
        query = pack(SessionsQuery(keys[by].public))
        with Caller(self.broker.address, keys["root"]) as caller:

            def there() -> bool:
                try:
                    found = unpack(caller.request(SESSIONS, query), Sessions).sessions
                except NotPresent:
                    return False
                return any(all(getattr(s, what) >= n for what, n in least.items()) for s in found)

            until(there, f"a session of {by} with {least}")


class Running:
    """A command under way."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process

    def line(self) -> str:
        """The next line of its output."""
        return self.process.stdout.readline().decode()

    def interrupt(self) -> tuple[int, str, str]:
        """Ctrl-C; gives exit code, the rest of the output, standard error."""
        os.kill(self.process.pid, signal.SIGINT)
        return self.end()

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out.decode(), err.decode()
