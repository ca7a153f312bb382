"""`bus-broker`: its commands on the folder of a broker that runs or does not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bus import join, keystore
from bus.identity import Address, fingerprint, to_hex
from tests.support.broker import Broker, run_cli
from tests.support.raw import ERROR, OK, PUBLISH, SUBSCRIBE, Raw
from tests.support.reception import newcomer, reception, refused_by_handshake, roles_of, state


def test_a_token_made_on_the_command_line_works_at_a_running_broker() -> None:
    with reception() as broker:
        made = run_cli("token", str(broker.folder), "--role", "observer", "--name", "wall")
        assert made.returncode == 0, made.stderr
        found = join.parse(made.stdout)
        assert found.address == broker.address
        lamp = newcomer(broker)
        answer = join.enrol(found.address, lamp, "lamp", found.token)
        assert (answer.state, answer.roles) == ("accepted", ["observer"])
        assert roles_of(broker, lamp) == ["observer"]
        assert run_cli("tokens", str(broker.folder)).stdout == ""


def test_a_token_made_before_the_broker_runs_works_and_can_be_taken_back(tmp_path: Path) -> None:
    broker = Broker(tmp_path, boss="admin")
    kept, taken = (
        join.parse(run_cli("token", str(tmp_path), "--role", "app").stdout) for _ in range(2)
    )
    listed = json.loads(run_cli("tokens", str(tmp_path), "--json").stdout)["tokens"]
    assert len(listed) == 2
    after = run_cli("tokens", str(tmp_path), "--remove", listed[1]["id"])
    assert listed[0]["id"] in after.stdout
    assert listed[1]["id"] not in after.stdout
    again = run_cli("tokens", str(tmp_path), "--remove", listed[1]["id"])
    assert again.returncode == 8
    assert "no token" in again.stderr
    broker.start()
    try:
        assert state(broker, newcomer(broker, "a"), taken.token) == "rejected"
        assert state(broker, newcomer(broker, "b"), kept.token) == "accepted"
    finally:
        broker.stop()


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["--role", "boss"], 8, "unknown role 'boss'"),
        (["--role", "app", "--valid", "0"], 8, "seconds"),
        (["--role", "app", "--valid", "inf"], 8, "seconds"),
        (["--role", "app", "--endpoint", "tcp://0.0.0.0:1"], 8, "--endpoint tcp://HOST:PORT"),
        ([], 2, "--role"),
    ],
)
def test_a_token_that_cannot_be_is_told_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], code: int, problem: str
) -> None:
    Broker(tmp_path)
    result = run_cli("token", str(tmp_path), *arguments)
    assert result.returncode == code
    assert problem in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "enrolment.json").exists()


def test_a_key_is_allowed_with_rules_of_its_own_and_forbidden_again() -> None:
    with reception() as broker:
        lamp = newcomer(broker)
        folder = str(broker.folder)
        allowed = run_cli(
            "allow", folder, to_hex(lamp.public), "--role", "app", "--name", "lamp",
            "--allow", "subscribe=mesh.event.>", "--deny", "publish=app.alarm.>",
            "--deny", "subscribe=app.secret.*",
        )  # fmt: skip
        assert allowed.returncode == 0, allowed.stderr
        broker.reload()
        with Raw(broker.address, lamp) as raw:
            raw.hello()
            raw.send(PUBLISH, {"s": "app.alarm.fire", "id": 1})
            assert raw.hear_only(ERROR)["err"] == "denied"
            raw.send(SUBSCRIBE, {"id": 2, "sid": 1, "s": "app.secret.*"})
            assert raw.hear_only(ERROR)["err"] == "denied"
            raw.send(SUBSCRIBE, {"id": 3, "sid": 1, "s": "app.>"})
            raw.hear_only(OK)
            for subject in ("app.secret.x", "app.open"):
                raw.send(PUBLISH, {"s": subject})
            assert raw.hear()[1]["s"] == "app.open"
            assert run_cli("forbid", folder, to_hex(lamp.public)).returncode == 0
            broker.reload()
            assert raw.is_cut()
        assert refused_by_handshake(broker, lamp)


def test_the_keys_are_listed_with_fingerprints_and_rules(tmp_path: Path) -> None:
    broker = Broker(tmp_path, boss="admin", lamp="app")
    lamp = broker.keys["lamp"].public
    run_cli("allow", str(tmp_path), lamp, "--name", "lamp", "--allow", "publish=topic.lamp")
    listed = run_cli("keys", str(tmp_path)).stdout
    assert f"{fingerprint(lamp)}  lamp  -\n  {to_hex(lamp)}  {lamp}\n" in listed
    assert "  allow publish topic.lamp\n" in listed
    [boss, shown] = json.loads(run_cli("keys", str(tmp_path), "--json").stdout)["keys"]
    assert boss["roles"] == ["admin"]
    assert shown["allow"] == {"publish": ["topic.lamp"]}
    assert (shown["key"], shown["hex"]) == (lamp, to_hex(lamp))


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["--role", "app", "--allow", "publish"], 2, "VERB=PATTERN"),
        (["--role", "app", "--deny", "shout=x"], 2, "VERB one of publish, subscribe"),
        (["--role", "app", "--deny", "publish=a..b"], 8, "not a pattern: 'a..b'"),
        (["--deny", "publish=a"], 8, "no role and nothing allowed"),
    ],
)
def test_a_rule_that_cannot_be_is_told(
    tmp_path: Path, arguments: list[str], code: int, problem: str
) -> None:
    broker = Broker(tmp_path, lamp="app")
    result = run_cli("allow", str(tmp_path), "0" * 64, *arguments)
    assert result.returncode == code, result.stderr
    assert problem in result.stderr
    assert len(keystore.load_access(tmp_path / "access.json").entries) == len(broker.keys)


def test_a_key_that_is_not_on_the_list_cannot_be_forbidden(tmp_path: Path) -> None:
    Broker(tmp_path)
    result = run_cli("forbid", str(tmp_path), "0" * 64)
    assert result.returncode == 8
    assert "is not on the list" in result.stderr


def test_many_commands_at_once_lose_no_key_and_no_token(tmp_path: Path) -> None:
    Broker(tmp_path)
    folder = str(tmp_path)
    commands = [["allow", folder, f"{n:064x}", "--role", "app"] for n in range(4)]
    commands += [["token", folder, "--role", "app"]] * 4
    running = [
        subprocess.Popen([sys.executable, "-P", "-m", "bus.cli", *c], stdout=subprocess.DEVNULL)
        for c in commands
    ]
    assert [process.wait(30) for process in running] == [0] * 8
    assert len(keystore.load_access(tmp_path / "access.json").entries) == 4
    assert len(json.loads(run_cli("tokens", folder, "--json").stdout)["tokens"]) == 4


@pytest.mark.parametrize("endpoint", ["tcp://192.0.2.1:7600", "tcp://nonsense", "what"])
def test_an_endpoint_that_cannot_be_is_a_matter_of_configuration(
    tmp_path: Path, endpoint: str
) -> None:
    broker = Broker(tmp_path)
    config = tmp_path / "broker.json"
    config.write_text(config.read_text().replace(broker.address.endpoint, endpoint))
    result = run_cli("run", str(tmp_path))
    assert result.returncode == 8, result.stderr
    assert endpoint in result.stderr
    assert "Traceback" not in result.stderr


def test_an_endpoint_that_is_taken_exits_9(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()
    try:
        result = run_cli("run", str(tmp_path))
        assert result.returncode == 9
        assert f"cannot listen on {broker.address.endpoint}" in result.stderr
    finally:
        broker.stop()


def test_the_address_in_a_join_string_can_be_another_than_the_brokers_own(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    made = run_cli("token", str(tmp_path), "--role", "app", "--endpoint", "tcp://bus.example:443")
    assert join.parse(made.stdout).address == Address("tcp://bus.example:443", broker.address.key)
