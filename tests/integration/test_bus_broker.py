"""The broker as a daemon: how it starts, stops, is configured, and what it says when it cannot."""

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus import Unreachable, keystore
from bus.caller import Caller
from tests.support.broker import Broker, run_cli, running_broker, until
from tests.support.raw import ERROR, GOODBYE, HELLO, Raw


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bus-") as made:
        yield Path(made)


def fails(folder: Path, code: int) -> str:
    """Run a broker that cannot start; give what it says."""
    result = run_cli("run", str(folder))
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("bus-broker: ")
    return result.stderr


def test_init_makes_a_folder_that_runs_and_admits_its_admin(folder: Path) -> None:
    port = socket.socket()
    port.bind(("127.0.0.1", 0))
    endpoint = f"tcp://127.0.0.1:{port.getsockname()[1]}"
    port.close()
    home = folder / "home"
    made = run_cli("init", str(home), "--endpoint", endpoint)
    assert made.returncode == 0, made.stderr
    assert home.stat().st_mode & 0o777 == 0o700
    again = run_cli("init", str(home))
    assert again.returncode == 9
    assert "there is a broker here already" in again.stderr


def test_a_key_is_allowed_on_the_command_line_and_taken_over_on_sighup() -> None:
    with running_broker(alice="app") as broker:
        late = keystore.create(broker.folder / "late.key")
        allowed = run_cli(
            "allow", str(broker.folder), late.public, "--role", "app", "--name", "late"
        )
        assert allowed.returncode == 0, allowed.stderr
        broker.reload()
        with Raw(broker.address, late) as raw:
            assert raw.hello()["roles"] == ["app"]


@pytest.mark.parametrize(
    ("key", "role", "problem"), [("short", "app", "not a key"), ("0" * 40, "boss", "unknown role")]
)
def test_a_bad_key_or_role_is_refused_on_the_command_line(
    folder: Path, key: str, role: str, problem: str
) -> None:
    broker = Broker(folder)
    result = run_cli("allow", str(folder), key, "--role", role)
    assert result.returncode == 8
    assert problem in result.stderr
    assert keystore.load_access(broker.folder / "access.json").entries == []


def test_sigterm_says_goodbye_frees_the_port_and_exits_cleanly() -> None:
    with running_broker(alice="app") as broker, Raw(broker.address, broker.keys["alice"]) as raw:
        raw.hello()
        broker.signal(signal.SIGTERM)
        assert raw.hear_only(GOODBYE) == {"num": 503, "reason": "the broker is stopping"}
        assert broker.stop() == 0
        assert raw.is_cut()
        broker.start()  # at the same endpoint


def test_sigint_stops_it_as_well() -> None:
    with running_broker() as broker:
        broker.signal(signal.SIGINT)
        assert broker.stop() == 0


def test_sighup_ends_the_session_of_a_removed_key_at_once_and_for_good() -> None:
    with running_broker(alice="app", bob="app") as broker:
        alice, bob = (Raw(broker.address, broker.keys[n]) for n in ("alice", "bob"))
        with alice, bob:
            alice.hello()
            bob.hello()
            broker.forbid("alice")
            broker.reload()
            assert alice.is_cut()
            assert alice.silent(0.2)
            assert bob.alive()
        with Raw(broker.address, broker.keys["alice"]) as again:
            again.event(16384)  # ZMQ_EVENT_HANDSHAKE_FAILED_AUTH


def test_sighup_with_a_broken_list_keeps_the_one_in_force() -> None:
    with running_broker(alice="app") as broker, Raw(broker.address, broker.keys["alice"]) as raw:
        raw.hello()
        (broker.folder / "access.json").write_text("{")
        broker.signal(signal.SIGHUP)
        until(lambda: "access list not reloaded" in broker.log, "a line in the log")
        assert "access.json" in broker.log
        assert raw.alive()


def test_a_taken_endpoint_is_exit_9_and_named() -> None:
    with running_broker() as broker:
        said = fails(broker.folder, 9)
        assert f"cannot listen on {broker.address.endpoint}: Address already in use" in said
        assert broker.running


def test_a_key_file_that_others_can_read_is_exit_8_with_the_command(folder: Path) -> None:
    Broker(folder)
    (folder / "broker.key").chmod(0o644)
    assert f"run: chmod 600 {folder}/broker.key" in fails(folder, 8)


@pytest.mark.parametrize("name", ["broker.json", "access.json", "broker.key"])
@pytest.mark.parametrize("text", ["{", "", "[]", '{"surprise": 1}'])
def test_a_broken_file_is_exit_8_and_named(folder: Path, name: str, text: str) -> None:
    Broker(folder)
    (folder / name).write_text(text)
    assert f"{folder / name}: " in fails(folder, 8)


@pytest.mark.parametrize("name", ["broker.json", "access.json", "broker.key"])
def test_a_missing_file_is_exit_8_and_named(folder: Path, name: str) -> None:
    Broker(folder)
    (folder / name).unlink()
    assert f"{folder / name}: no such file" in fails(folder, 8)


def test_an_unknown_log_format_is_a_usage_error(folder: Path) -> None:
    Broker(folder)
    result = run_cli("run", str(folder), "--log", "xml")
    assert result.returncode == 2


def test_the_log_is_json_when_asked_for() -> None:
    with running_broker("--log", "json", alice="app") as broker:
        with Raw(broker.address, broker.keys["alice"]) as raw:
            raw.send(0x02)
            assert raw.hear_only(ERROR)["err"] == "hello_first"
        broker.stop()
        listening, *_, stopped = broker.events
        assert (listening["event"], listening["level"]) == ("listening", "info")
        assert listening["endpoint"] == broker.address.endpoint
        assert listening["key"] == broker.address.key
        assert stopped["event"] == "stopped"
        assert stopped["refused"] == {"hello_first": 1}


def test_the_log_holds_no_secret() -> None:
    with running_broker(alice="app") as broker:
        with Raw(broker.address, broker.keys["alice"]) as raw:
            raw.hello()
            raw.send(HELLO)
            raw.hear()
        broker.stop()
        for name in ("alice", "broker"):
            assert keystore.load(broker.folder / f"{name}.key").secret not in broker.log


def test_a_broker_on_port_0_says_where_it_listens(folder: Path) -> None:
    broker = Broker(folder, alice="app")
    text = (folder / "broker.json").read_text()
    port = broker.address.endpoint.rpartition(":")[2]
    (folder / "broker.json").write_text(text.replace(f":{port}", ":0"))
    broker.start("--log", "json")
    try:
        endpoint = str(broker.events[0]["endpoint"])
        assert not endpoint.endswith(":0")
        address = type(broker.address)(endpoint, broker.address.key)
        with Caller(address, broker.keys["alice"]):
            pass
    finally:
        broker.stop()


def test_nothing_secret_is_in_its_arguments_or_environment() -> None:
    with running_broker() as broker:
        assert broker.process is not None
        secret = keystore.load(broker.folder / "broker.key").secret
        for name in ("cmdline", "environ"):
            seen = Path(f"/proc/{broker.process.pid}/{name}").read_bytes()
            assert secret.encode() not in seen


def test_a_stopped_process_does_not_answer_and_the_caller_says_so() -> None:
    with running_broker(alice="app") as broker:
        broker.signal(signal.SIGSTOP)
        try:
            with pytest.raises(
                Unreachable, match=f"no broker answers at {broker.address.endpoint}"
            ):
                Caller(broker.address, broker.keys["alice"], timeout=0.5).__enter__()
        finally:
            os.kill(broker.process.pid if broker.process else 0, signal.SIGCONT)
