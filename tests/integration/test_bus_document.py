"""docs/bus.md: the commands that need a second terminal, a file or another machine, as they stand there."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.broker import PATIENCE, running_broker, until
from tests.support.bus_command import BusCommand

PAGE = Path(__file__).parents[2] / "docs" / "bus.md"
# Streams, and answers to its key: what no command line does.
PROGRAM = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from bus import Address, connect, keystore

    async def pieces(request):
        for piece in (b"one ", b"two"):
            yield piece

    async def main():
        endpoint, key, file = sys.argv[1:]
        async with connect(Address(endpoint, key), keystore.load(Path(file))) as bus:
            bus.answer("signal.ping", lambda request: b"here")
            await bus.serve("app.export", pieces)
            print("ready", flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())
""")


def documented() -> list[str]:
    """The lines of the page's plain blocks, without remarks."""
    blocks = PAGE.read_text().split("```")[1::2]
    plain = [block.splitlines()[1:] for block in blocks if block.startswith("\n")]
    return [re.sub(r"\s+# .*", "", line) for block in plain for line in block]


class Terminals:
    """Types what the page has; `left` is what nobody has typed yet."""

    def __init__(self, bus: BusCommand, folder: Path) -> None:
        self.bus, self.folder = bus, folder
        self.left = documented()
        self.open: list[subprocess.Popen[str]] = []

    def begin(self, by: str, line: str, **instead: str) -> subprocess.Popen[str]:
        self.left.remove(line)
        line = line.removeprefix("here:   ").removeprefix("there:  ")
        for old, new in instead.items():
            line = line.replace(old.replace("_", " "), new)
        terminal = subprocess.Popen(
            ["sh", "-c", f"exec {line}" if "|" not in line else line],
            cwd=self.folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **self.bus.environment,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                **({"VISCRIPT_CONTEXT": by} if by else {}),
            },
        )  # fmt: skip
        self.open.append(terminal)
        return terminal

    def run(self, by: str, line: str, given: str = "", **instead: str) -> str:
        """Type it, wait for its end, and give what it shows."""
        terminal = self.begin(by, line, **instead)
        out, err = terminal.communicate(given, timeout=PATIENCE)
        assert terminal.returncode == 0, (line, out, err)
        return out

    def interrupt(self, terminal: subprocess.Popen[str]) -> str:
        terminal.send_signal(signal.SIGINT)
        return terminal.communicate(timeout=PATIENCE)[0]


@pytest.fixture
def terminals(tmp_path):
    with running_broker(root="admin", ann="operator", bob="app", cyd="app") as broker:
        found = Terminals(BusCommand(broker, tmp_path), tmp_path)
        try:
            yield found
        finally:
            for terminal in found.open:
                if terminal.poll() is None:
                    terminal.kill()
                terminal.communicate()


def test_every_command_of_the_page_works_as_it_stands_there(terminals: Terminals) -> None:
    bus, folder = terminals.bus, terminals.folder

    # Messages.
    everything = terminals.begin("bob", "viscript bus sub 'app.>'")
    bus.session_of("bob", subscriptions=1)
    (folder / "cat.jpg").write_bytes(b"\xff\xd8 a cat")
    terminals.run("ann", "viscript bus pub app.picture --file cat.jpg")
    terminals.run("ann", "date | viscript bus pub app.clock -")
    picture = terminals.begin("cyd", "viscript bus sub app.picture --count 1 --raw > cat.jpg")
    bus.session_of("cyd", subscriptions=1)
    bus.run("ann", "pub", "app.picture", "another cat")
    assert picture.wait(PATIENCE) == 0
    assert (folder / "cat.jpg").read_text() == "another cat"
    shown = terminals.interrupt(everything)
    assert [line.split()[0] for line in shown.splitlines()] == [
        "app.picture", "app.clock", "app.picture"
    ]  # fmt: skip

    # Requests.
    terminals.begin("bob", "viscript bus reply app.echo")
    terminals.begin(
        "cyd",
        "viscript bus reply app.upper --command 'tr a-z A-Z' --name shouter --inflight 4",
    )
    bus.session_of("bob", services=1)
    bus.session_of("cyd", services=1)
    assert terminals.run("ann", "viscript bus req app.upper 'good morning'").strip() == (
        "GOOD MORNING"
    )
    everybody = terminals.run("ann", "viscript bus req app.upper 'who are you all?' --all")
    assert "WHO ARE YOU ALL?" in everybody
    address = bus.broker.address
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, address.endpoint, address.key,
         str(bus.broker.folder / "bob.key")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    terminals.open.append(program)
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    terminals.run("ann", "viscript bus req app.export --stream > export.bin --raw")
    assert (folder / "export.bin").read_text() == "one two"
    with bus.running("bob", "reply", "app.charge", "charged"):
        until(lambda: "app.charge" in bus.run("ann", "services").stdout, "app.charge is served")
        charged = terminals.run(
            "ann", """viscript bus req app.charge '{"order": 7}' --idempotent"""
        )
    assert charged.strip() == "charged"
    key = bus.broker.keys["bob"].public
    pinged = terminals.run("ann", "viscript bus req signal.ping --to KEY", KEY=f"'{key}'")
    assert pinged.strip() == "here"

    # Who is there.
    events = terminals.begin("root", "viscript bus events")
    bus.session_of("root", subscriptions=1)
    cyd = bus.broker.keys["cyd"].public
    [session] = [s for s in bus.ask("root", "sessions") if s["key"] == cyd]
    terminals.run(
        "root", "viscript bus kick 17 --reason 'wrong machine'", **{"17": str(session["session"])}
    )
    until(lambda: "wrong machine" in bus.run("root", "sessions", "--closed").stdout, "the kick")
    assert "wrong machine" in terminals.interrupt(events)

    # Another machine.
    token = terminals.run(
        "root",
        "here:   viscript bus token --role app --name thermometer --endpoint tcp://bus.example.org:7600",
        **{"tcp://bus.example.org:7600": address.endpoint},
    )
    terminals.run("", "there:  viscript bus join - home", token)
    terminals.run("", "there:  viscript bus pub app.temperature 21.5 --context home")
    terminals.run("root", "here:   viscript bus keys open 600")
    waiting = terminals.begin(
        "",
        "there:  viscript bus join tcp://bus.example.org:7600 home --broker-key KEY --wait 600",
        **{"tcp://bus.example.org:7600": address.endpoint, "KEY": f"'{address.key}'"},
        home="second",
    )
    assert waiting.stderr is not None
    fingerprint = waiting.stderr.readline().split()[-1]
    pending = terminals.run("root", "here:   viscript bus keys pending")
    assert fingerprint in pending
    terminals.run(
        "root",
        "here:   viscript bus keys accept FINGERPRINT --role app",
        FINGERPRINT=fingerprint,
    )
    assert waiting.wait(PATIENCE) == 0

    # Recordings.
    recording = terminals.begin("bob", "viscript bus record 'app.>' day.rec")
    bus.session_of("bob", subscriptions=1)
    bus.run("ann", "pub", "app.x", "kept")
    until(lambda: (folder / "day.rec").stat().st_size > 100, "something is recorded")
    terminals.interrupt(recording)
    terminals.run("ann", "viscript bus replay day.rec --speed 60")

    assert terminals.left == []
