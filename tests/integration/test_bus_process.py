"""Programs on the bus as a launcher sees them: ours, any other's by the document, and the raw client."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest

from bus import NotPresent, Refused, keystore
from bus.caller import Caller
from tests.support.broker import PATIENCE, Broker, running_broker, until

ROOT = Path(__file__).parents[2]
ASYNC = """
from bus import process

async def main(participant):
    print("up", participant.app, participant.id, participant.state_dir, flush=True)
    await participant.stopping.wait()
    print("stopping", flush=True)
    return 3

process.run(main)
"""
PLAIN = """
import signal, sys, time
from bus import process
signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
process.attach()
print("up", flush=True)
while True:
    time.sleep(0.05)
"""
STUBBORN = """
import asyncio
from bus import process
process.GRACE = 0.3

async def main(participant):
    try:
        await asyncio.sleep(60)
    finally:
        print("cancelled", flush=True)

process.run(main)
"""
[BY_THE_DOCUMENT] = re.findall(
    r"^```python\n(.*?)^```",
    (ROOT / "docs/protocol/process.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


class Program:
    """A program that was launched with the key of `app`."""

    def __init__(self, broker: Broker, code: str, **environment: str) -> None:
        self.broker = broker
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", code], env={**broker.environment("app"), **environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    @property
    def key(self) -> str:
        return self.broker.keys["app"].public

    def ask(self, subject: str) -> Any:
        with Caller(self.broker.address, self.broker.keys["boss"]) as caller:
            return msgpack.unpackb(caller.request(subject, to=self.key, timeout=5))

    def present(self) -> bool:
        try:
            self.ask("signal.ping")
        except NotPresent:
            return False
        return True

    def ends(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


@contextmanager
def launched(code: str, **environment: str) -> Iterator[Program]:
    with running_broker(app="app", boss="operator") as broker:
        program = Program(broker, code, **environment)
        try:
            until(lambda: program.process.poll() is not None or program.present(), "on the bus")
            yield program
        finally:
            if program.process.poll() is None:
                program.process.kill()
            program.process.communicate()


every_kind = pytest.mark.parametrize(
    ("code", "exit_code"),
    [(ASYNC, 3), (PLAIN, 4), (BY_THE_DOCUMENT, 0)],
    ids=["run", "attach", "by the document"],
)


@every_kind
def test_a_program_answers_ping_and_usage(code: str, exit_code: int) -> None:
    with launched(code) as program:
        assert abs(program.ask("signal.ping")["t"] - time.time()) < 60
        usage = program.ask("signal.usage")
        assert usage["cpu_seconds"] > 0
        assert usage["rss"] > 1 << 20
        assert usage["threads"] >= 1
        assert usage["fds"] >= 3
        assert program.ask("signal.usage")["bus_in"] > usage["bus_in"] > 0
        assert program.ask("signal.usage")["bus_out"] > usage["bus_out"] > 0
        with pytest.raises(Refused) as caught:
            program.ask("signal.unknown")
        assert (caught.value.code, caught.value.err) == (404, "no_handler")


@every_kind
def test_a_program_answers_shutdown_and_then_ends(code: str, exit_code: int) -> None:
    with launched(code) as program:
        assert program.ask("signal.shutdown") == {"pid": program.process.pid}
        ended, _, err = program.ends()
        assert (ended, "Traceback" in err) == (exit_code, False), err
        assert not program.present()


@every_kind
def test_a_program_stops_on_sigterm(code: str, exit_code: int) -> None:
    with launched(code) as program:
        program.process.send_signal(signal.SIGTERM)
        assert program.ends()[0] == exit_code


by_themselves = pytest.mark.parametrize(
    "code", [ASYNC, BY_THE_DOCUMENT], ids=["run", "by the document"]
)


@by_themselves
def test_a_key_that_is_refused_is_exit_6(code: str) -> None:
    with running_broker(boss="operator") as broker:
        keystore.create(broker.folder / "app.key")
        broker.keys["app"] = keystore.load(broker.folder / "app.key")
        program = Program(broker, code.replace("+ 30", "+ 1"))  # it cannot tell a refusal
        ended, _, err = program.ends()
        assert ended == 6
        assert err.startswith("error: ") or "\nerror: " in err
        assert broker.address.endpoint in err


@by_themselves
def test_a_key_file_that_others_can_read_is_exit_8(code: str) -> None:
    with running_broker(app="app") as broker:
        path = broker.folder / "app.key"
        path.chmod(0o644)
        ended, _, err = Program(broker, code).ends()
        assert ended == 8
        assert f"chmod 600 {path}" in err


@by_themselves
@pytest.mark.parametrize("missing", ["VISCRIPT_BROKER", "VISCRIPT_BROKER_KEY", "VISCRIPT_KEY_FILE"])
def test_a_missing_variable_is_exit_8_and_named(code: str, missing: str) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("VISCRIPT_")}
    given = {
        "VISCRIPT_BROKER": "tcp://127.0.0.1:1",
        "VISCRIPT_BROKER_KEY": "k",
        "VISCRIPT_KEY_FILE": "x",
    }
    del given[missing]
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], env={**kept, **given},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert result.returncode == 8
    assert missing in result.stderr


def test_attach_raises_what_keeps_the_program_off_the_bus() -> None:
    with running_broker() as broker:
        keystore.create(broker.folder / "app.key")
        ended, _, err = Program(broker, PLAIN).ends()
        assert ended == 1
        assert "NotAuthorised" in err


def test_main_gets_what_the_launcher_told() -> None:
    with launched(ASYNC) as program:
        program.ask("signal.shutdown")
        _, out, _ = program.ends()
        assert out == f"up app 7 {program.broker.folder}\nstopping\n"


def test_a_main_that_does_not_stop_is_cancelled() -> None:
    with launched(STUBBORN) as program:
        program.ask("signal.shutdown")
        ended, out, _ = program.ends()
        assert (ended, out) == (0, "cancelled\n")


def test_a_program_outlives_the_broker_and_is_back_by_itself() -> None:
    with launched(ASYNC) as program:
        program.broker.kill()
        program.broker.start()
        until(program.present, "back on the bus")
        assert program.process.poll() is None


def test_the_examples_import_nothing_of_this_project() -> None:
    code = (ROOT / "examples/clients/client.py").read_text() + BY_THE_DOCUMENT
    imported = {
        name.split(".")[0]
        for line in re.findall(r"^(?:import|from) (.+)$", code, re.MULTILINE)
        for name in line.split(" import ")[0].split(", ")
    }
    assert imported <= {
        "json",
        "os",
        "sys",
        "time",
        "msgpack",
        "zmq",
        "pathlib",
        "resource",
        "signal",
        "stat",
    }


def test_a_key_file_is_what_the_document_says() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pair = keystore.create(Path(folder) / "x.key")
        found = json.loads((Path(folder) / "x.key").read_text())
        assert found == {"public": pair.public, "secret": pair.secret}
