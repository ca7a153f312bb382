"""`viscript bus reply`: answer requests, with a text, the request itself, or what a command prints."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    from bus.client import Bus, Request

app = typer.Typer(add_completion=False, rich_markup_mode=None)

AT_ONCE = 4  # commands that run at the same time, unless --inflight says otherwise


@app.command(
    "reply",
    epilog=examples(
        "viscript bus reply app.echo",
        "viscript bus reply app.status 'all is well' --count 1",
        "viscript bus reply app.upper --command 'tr a-z A-Z' --name shouter",
    ),
)
def reply(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT")],
    body: Annotated[
        str | None, typer.Argument(metavar="[BODY]", help="Absent: the request comes back.")
    ] = None,
    *,
    command: Annotated[
        str | None,
        typer.Option(metavar="CMD", help="Its output is the answer; the request is its input."),
    ] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="What `services` shows.")] = "",
    inflight: Annotated[
        int, typer.Option(min=0, max=1024, help="Requests at once; more wait at the broker.")
    ] = 0,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="End after so many.")
    ] = None,
) -> None:
    """Answer requests until Ctrl-C.

    A command is run without a shell. It finds VISCRIPT_SUBJECT, VISCRIPT_SENDER (the requester's key) and
    VISCRIPT_TIMEOUT (seconds left) in its environment; if it fails, the requester gets an error with its exit
    code.
    """
    from viscript.commands.bus.connection import attend
    from viscript.errors import BadUsage

    if command is not None and body is not None:
        raise BadUsage("BODY and --command are two answers; give one of them")
    limit = inflight or (AT_ONCE if command is not None else 0)
    commands = _Commands(command, limit) if command is not None else None
    answers = _Answers(commands, body)
    attend(lambda bus: _serve(bus, subject, answers, name, limit, count))


async def _serve(
    bus: Bus, subject: str, answers: _Answers, name: str, limit: int, count: int | None
) -> None:
    import asyncio

    from viscript import options
    from viscript.output import line, say

    done = asyncio.Event()
    answered = 0

    async def handle(request: Request) -> bytes:
        nonlocal answered
        try:
            return await answers.to(request)
        finally:
            answered += 1
            _show(request)
            if answered == count:
                done.set()

    await bus.serve(subject, handle, name=name, inflight=limit)
    if options.as_json():
        line({"serves": subject, "name": name, "inflight": limit})
    else:
        say(f"answering requests on {subject}; Ctrl-C ends it")
    try:
        await done.wait()
        await bus.drain()
    finally:
        answers.end()


def _show(request: Request) -> None:
    from bus.identity import short
    from viscript import options
    from viscript.commands.bus import bodies
    from viscript.output import line, say

    if options.as_json():
        fields = bodies.fields(request.body)
        line({"subject": request.subject, "from": request.sender, **fields})
    else:
        say(f"{request.subject}  {short(request.sender)}  {bodies.readable(request.body)}")


class _Answers:
    """What a request is answered with."""

    def __init__(self, commands: _Commands | None, body: str | None) -> None:
        self._commands = commands
        self._body = None if body is None else body.encode()

    async def to(self, request: Request) -> bytes:
        import asyncio

        if self._commands is not None:
            loop, commands = asyncio.get_running_loop(), self._commands
            return await loop.run_in_executor(commands.threads, commands.run, request)
        return request.body if self._body is None else self._body

    def end(self) -> None:
        if self._commands is not None:
            self._commands.end()


class _Commands:
    """Runs the command for each request, in threads; `end`, or our own end, ends those that run."""

    def __init__(self, command: str, at_once: int) -> None:
        """`BadUsage` when there is no such command."""
        import shlex
        import shutil
        from concurrent.futures import ThreadPoolExecutor

        from viscript.errors import BadUsage
        from viscript.orphans import Guard

        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise BadUsage(f"--command: {error}: {command!r}") from None
        if not self._words or shutil.which(self._words[0]) is None:
            raise BadUsage(f"--command: there is no such program: {command!r}")
        self._guard = Guard()
        self.threads = ThreadPoolExecutor(at_once)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._ended = False

    def run(self, request: Request) -> bytes:
        """Its standard output; `Refused` when it fails or takes too long."""
        from bus.errors import Refused

        environment = {
            **os.environ,
            "VISCRIPT_SUBJECT": request.subject,
            "VISCRIPT_SENDER": request.sender,
            "VISCRIPT_TIMEOUT": f"{request.timeout:.3f}",
        }
        with tempfile.TemporaryFile() as given:
            given.write(request.body)
            given.seek(0)
            with self._lock:
                if self._ended:
                    raise Refused(503, "draining", "this worker is ending")
                process = subprocess.Popen(
                    self._words, stdin=given, stdout=subprocess.PIPE, env=environment,
                    start_new_session=True,
                )  # fmt: skip
                self._guard.holds(process.pid)
                self._running.add(process)
        return self._answer_of(process, request.timeout)

    def _answer_of(self, process: subprocess.Popen[bytes], timeout: float) -> bytes:
        from bus.errors import Refused
        from viscript.commands.bus.bodies import MAX_BODY

        alarm = threading.Timer(timeout, _kill, (process,))
        alarm.start()
        try:
            output = process.stdout.read(MAX_BODY + 1) if process.stdout else b""
            if len(output) > MAX_BODY:
                raise Refused(413, "too_large", f"the command's output is over {MAX_BODY} bytes")
            code = process.wait()
        finally:
            late = not alarm.is_alive()
            alarm.cancel()
            _kill(process)
            process.wait()
            self._guard.lets_go(process.pid)
            with self._lock:
                self._running.discard(process)
        if late:
            raise Refused(408, "deadline", "the command was not done in time")
        if code != 0:
            raise Refused(500, "failed", f"the command ended with {code}")
        return output

    def end(self) -> None:
        with self._lock:
            self._ended = True
            for process in self._running:
                _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """It and what it started; its id is its own until it was waited for."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
