"""`viscript bus record` and `replay`: what was published, kept and published again."""

import json
import os
import signal
import stat
import subprocess
import time

import msgpack
import pytest

from tests.support.broker import running_broker, until
from tests.support.bus_command import COMMAND, BusCommand


@pytest.fixture(scope="module")
def bus(tmp_path_factory):
    with running_broker(root="admin", ann="app", bob="app") as broker:
        yield BusCommand(broker, tmp_path_factory.mktemp("user"))


def unpacked(file):
    """All that is in it, head first."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(file.read_bytes())
    return list(unpacker)


def record(bus, file, *bodies, pause=0.0):
    """A recording of these bodies on app.r."""
    with bus.running(
        "bob", "record", "app.>", str(file), "--count", str(len(bodies)), "--json"
    ) as recorder:
        bus.session_of("bob", subscriptions=1)
        for body in bodies:
            bus.raw("bus", "pub", "app.r", "-", "--context", "ann", input=body)
            time.sleep(pause)
        code, out, err = recorder.end()
    assert (code, err) == (0, "")
    return json.loads(out)


def test_what_was_recorded_is_published_again_byte_for_byte(bus, tmp_path):
    file, bodies = tmp_path / "a.rec", [b"one", bytes(range(256)), b""]
    told = record(bus, file, *bodies)
    assert (told["messages"], told["bytes"]) == (3, file.stat().st_size)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    head, *messages = unpacked(file)
    assert head["broker"] == bus.broker.address.key
    assert [m["body"] for m in messages] == bodies
    assert {m["from"] for m in messages} == {bus.broker.keys["ann"].public}

    with bus.running("root", "sub", "app.r", "--count", "3", "--json") as sub:
        bus.session_of("root", subscriptions=1)
        assert bus.ask("bob", "replay", str(file), "--max") == {"messages": 3, "skipped": 0}
        _, out, _ = sub.end()
    again = [json.loads(line) for line in out.splitlines()]
    assert [m["size"] for m in again] == [3, 256, 0]
    assert {m["from"] for m in again} == {bus.broker.keys["bob"].public}


def test_pauses_are_kept_or_shortened(bus, tmp_path):
    file = tmp_path / "a.rec"
    record(bus, file, b"1", b"2", pause=1.0)
    _, first, second = unpacked(file)
    pause = second["t"] - first["t"]
    began = time.monotonic()
    bus.run("bob", "replay", str(file))
    assert time.monotonic() - began >= pause
    times = []
    with bus.running("root", "sub", "app.r", "--count", "4", "--json") as sub:
        bus.session_of("root", subscriptions=1)
        bus.run("bob", "replay", str(file), "--speed", "1000")
        bus.run("bob", "replay", str(file), "--max")
        times = [json.loads(line)["time"] for line in sub.end()[1].splitlines()]
    assert times[1] - times[0] < pause
    assert times[3] - times[2] < pause


def test_ctrl_c_keeps_what_was_recorded(bus, tmp_path):
    file = tmp_path / "a.rec"
    with bus.running("bob", "record", "app.>", str(file)) as recorder:
        bus.session_of("bob", subscriptions=1)
        bus.run("ann", "pub", "app.r", "x", "--count", "10")
        until(lambda: file.stat().st_size > 100, "the first messages on disk")
        code, out, _ = recorder.interrupt()
    assert code == 130
    kept = unpacked(file)[1:]
    assert out.startswith(f"{len(kept)} messages")


def test_a_recorder_that_was_killed_leaves_a_recording_that_can_be_replayed(bus, tmp_path):
    file = tmp_path / "a.rec"
    with bus.running("bob", "record", "app.>", str(file)) as recorder:
        bus.session_of("bob", subscriptions=1)
        bus.run("ann", "pub", "app.r", "x" * 1000, "--count", "2000")
        until(lambda: file.stat().st_size > 500_000, "messages on disk")
        os.kill(recorder.process.pid, signal.SIGKILL)
        recorder.end()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - 7])  # wherever it was cut, the tail is lost
    done = bus.run("bob", "replay", str(file), "--max")
    assert "ends in the middle of a message" in done.stderr
    assert "messages published" in done.stdout


def test_a_file_is_not_overwritten_unless_told(bus, tmp_path):
    file = tmp_path / "a.rec"
    file.write_text("mine")
    assert "--force" in bus.run("bob", "record", "app.>", str(file), code=9).stderr
    assert file.read_text() == "mine"
    bus.run("bob", "record", "app.>", str(file), "--force", "--for", "0.1")
    assert unpacked(file)[1:] == []


def test_messages_of_the_broker_are_recorded_but_not_played(bus, tmp_path):
    file = tmp_path / "a.rec"
    with bus.running("root", "record", "$SYS.event.>", str(file), "--count", "2") as recorder:
        bus.session_of("root", subscriptions=1)
        bus.run("ann", "rtt", "--count", "1")
        recorder.end()
    done = bus.run("root", "replay", str(file), "--max")
    assert "2 messages of the broker" in done.stderr
    assert done.stdout == "0 messages published\n"


@pytest.mark.parametrize(
    "data", [b"", b"not a recording", os.urandom(100_000), b"\xdf" + b"\xff" * 1000]
)
def test_what_is_no_recording_publishes_nothing(bus, data):
    done = bus.raw("bus", "replay", "-", "--context", "ann", input=data, code=1)
    assert done.stderr == b"error: standard input: not a recording made by viscript bus record\n"


def test_an_endless_hostile_file_is_refused_in_bounded_memory(bus, tmp_path):
    file = tmp_path / "evil.rec"
    head = msgpack.packb({"format": "viscript recording", "version": 1})
    with file.open("wb") as evil:
        evil.write(head + b"\x84\xa4body\xc6\xff\xff\xff\xff")
        evil.truncate(4 << 30)  # sparse
    limit = ["sh", "-c", 'ulimit -v 2000000; exec "$@"', "sh"]
    done = subprocess.run(
        [*limit, *COMMAND, "bus", "replay", str(file), "--max", "--context", "ann"],
        env=bus.environment, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "damaged at byte" in done.stderr
    file.unlink()


def test_a_disk_that_is_full_is_told(bus):
    with bus.running("bob", "record", "app.>", "/dev/full", "--force") as recorder:
        bus.session_of("bob", subscriptions=1)
        bus.run("ann", "pub", "app.r", "x" * 100_000)
        code, _, err = recorder.end()
    assert code == 1
    assert "No space left on device" in err
    assert "Traceback" not in err
