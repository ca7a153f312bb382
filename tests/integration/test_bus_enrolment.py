"""How a machine comes in, against the real broker: by token, by fingerprint, and how it does not."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from bus import KeyPair, NotAuthorised, join, keystore, signals
from bus.caller import Caller
from bus.errors import RemoteProtocolError, Unreachable
from bus.identity import Address, fingerprint, to_hex
from bus.routing.enrolment import MAX_FROM_ADDRESS, MAX_PENDING, STAY
from tests.support.broker import Broker, running_broker, until
from tests.support.raw import ERROR, HELLO, OK, PING, PUBLISH, REQUEST, SUBSCRIBE, Raw

ENROL, ENROLLED = 0x04, 0x86
REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "bus.cli", *arguments],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def asks(broker: Broker, subject: str, value: object = None, name: str = "boss") -> Any:
    with Caller(broker.address, broker.keys[name]) as caller:
        body = b"" if value is None else signals.pack(value)
        return msgpack.unpackb(caller.request(subject, body))


def token(broker: Broker, *roles: str, name: str = "", seconds: float = 60) -> str:
    query = signals.TokenQuery(list(roles or ("app",)), name, seconds)
    return str(asks(broker, signals.ENROL_TOKEN, query)["token"])


def opens(broker: Broker, seconds: float = 60) -> None:
    assert asks(broker, signals.ENROL_OPEN, signals.Opening(seconds)) == {}


def newcomer(broker: Broker, name: str = "lamp") -> KeyPair:
    return keystore.create(broker.folder / f"{name}.key")


def state(broker: Broker, pair: KeyPair, secret: str = "", name: str = "lamp") -> str:
    answer = join.enrol(broker.address, pair, name, secret)
    assert answer.fingerprint == fingerprint(pair.public)
    return answer.state


def waiting(broker: Broker) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = asks(broker, signals.ENROL_LIST)["pending"]
    return found


def refused_by_handshake(broker: Broker, pair: KeyPair) -> bool:
    with pytest.raises(NotAuthorised, match="has nobody enrol now"):
        join.enrol(broker.address, pair)
    return True


def roles_of(broker: Broker, pair: KeyPair) -> list[str]:
    with Raw(broker.address, pair) as raw:
        roles: list[str] = raw.hello()["roles"]
        return roles


@contextmanager
def reception() -> Iterator[Broker]:
    """Run a broker; `alice`, who is in session, must not notice anything."""
    with (
        running_broker(boss="admin", alice="app") as broker,
        Raw(broker.address, broker.keys["alice"]) as alice,
    ):
        alice.hello()
        yield broker
        assert broker.running, broker.log
        assert "Traceback" not in broker.log
        assert alice.alive()


def test_a_token_admits_a_machine_once_and_its_session_works() -> None:
    with reception() as broker:
        lamp, other = newcomer(broker), newcomer(broker, "other")
        secret, _ = token(broker, "node", name="attic"), token(broker)
        assert state(broker, lamp, secret) == "accepted"
        assert roles_of(broker, lamp) == ["node"]
        assert state(broker, other, secret) == "rejected"
        assert state(broker, lamp, secret) == "accepted"  # it is told again what it is
        with Raw(broker.address, other) as raw:
            raw.send(HELLO)
            assert raw.hear_only(ERROR)["err"] == "key_unknown"
        entry = keystore.load_access(broker.folder / "access.json").get(lamp.public)
        assert entry is not None
        assert (entry.name, entry.roles) == ("attic", ["node"])


def test_the_last_token_closes_the_door_behind_it() -> None:
    with reception() as broker:
        secret = token(broker)
        assert state(broker, newcomer(broker), secret) == "accepted"
        assert refused_by_handshake(broker, newcomer(broker, "other"))


def test_a_token_that_expired_admits_nobody() -> None:
    with reception() as broker:
        lamp = newcomer(broker)
        secret = token(broker, seconds=0.2)
        until(lambda: asks(broker, signals.ENROL_LIST)["tokens"] == [], "expired")
        assert refused_by_handshake(broker, lamp)
        opens(broker)
        assert state(broker, lamp, secret) == "rejected"
        assert waiting(broker) == []


@pytest.mark.parametrize("wrong", ["x" * 43, "x", "\x00", "ä" * 255])
def test_a_wrong_token_admits_nobody_and_uses_up_nothing(wrong: str) -> None:
    with reception() as broker:
        secret = token(broker)
        lamp = newcomer(broker)
        assert state(broker, lamp, wrong) == "rejected"
        assert state(broker, lamp, secret) == "accepted"


def test_a_token_outlives_the_broker_and_is_good_once_over_restarts() -> None:
    with running_broker(boss="admin") as broker:
        secret, _ = token(broker, name="lamp"), token(broker)
        broker.kill()
        assert secret not in (broker.folder / "enrolment.json").read_text()
        assert (broker.folder / "enrolment.json").stat().st_mode & 0o777 == 0o600
        broker.start()
        lamp = newcomer(broker)
        assert state(broker, lamp, secret) == "accepted"
        broker.kill()
        broker.start()
        assert roles_of(broker, lamp) == ["app"]
        assert state(broker, newcomer(broker, "other"), secret) == "rejected"


def test_an_admin_accepts_by_fingerprint_and_the_session_works() -> None:
    with reception() as broker:
        lamp = newcomer(broker)
        opens(broker)
        assert state(broker, lamp) == "pending"
        [asked] = waiting(broker)
        assert (asked["key"], asked["name"]) == (lamp.public, "lamp")
        assert asked["fingerprint"] == fingerprint(lamp.public)
        answer = signals.EnrolmentAnswer(lamp.public, "attic lamp", ["app", "observer"])
        assert asks(broker, signals.ENROL_ACCEPT, answer) == {}
        accepted = join.enrol(broker.address, lamp)
        assert (accepted.state, accepted.roles) == ("accepted", ["app", "observer"])
        assert roles_of(broker, lamp) == ["app", "observer"]


def test_an_admin_rejects_and_the_key_stays_out() -> None:
    with reception() as broker:
        lamp = newcomer(broker)
        opens(broker)
        assert state(broker, lamp) == "pending"
        assert asks(broker, signals.ENROL_REJECT, signals.EnrolmentAnswer(lamp.public)) == {}
        assert state(broker, lamp) == "rejected"
        assert waiting(broker) == []
        opens(broker, 0)
        assert refused_by_handshake(broker, lamp)


def test_a_name_with_control_characters_is_shown_without_them() -> None:
    with reception() as broker:
        opens(broker)
        with Raw(broker.address, newcomer(broker)) as raw:
            raw.send(ENROL, {"id": 1, "name": "ad\x1b[31mmin\r\n\u202eroot\x00"})
            assert raw.hear_only(ENROLLED)["state"] == "pending"
            assert raw.is_cut()
        assert [asked["name"] for asked in waiting(broker)] == ["ad[31mminroot"]
        assert "\x1b" not in broker.log


def test_while_the_door_is_closed_an_unknown_key_does_not_get_through_the_handshake() -> None:
    with reception() as broker:
        lamp = newcomer(broker)
        for code, fields in ((ENROL, {"id": 1}), (PUBLISH, {"s": "app.x"}), (HELLO, {})):
            with Raw(broker.address, lamp) as raw:
                raw.send(code, fields)
                assert raw.event(REFUSED) == 400
                assert raw.silent(0.05)


@pytest.mark.parametrize(
    ("code", "fields"),
    [(HELLO, {"name": "alice"}), (PUBLISH, {"s": "app.x", "id": 1}), (PING, {"t": 1}),
     (SUBSCRIBE, {"id": 1, "sid": 1, "s": "app.>"}), (REQUEST, {"id": 1, "s": "$SYS.info", "dl": 1000})],
)  # fmt: skip
def test_while_it_is_open_an_unknown_key_may_say_nothing_but_enrol(
    code: int, fields: dict[str, Any]
) -> None:
    with reception() as broker:
        opens(broker)
        with Raw(broker.address, newcomer(broker)) as raw:
            raw.send(code, fields, b"body")
            error = raw.hear_only(ERROR)
            assert (error["num"], error["err"]) == (401, "key_unknown")
            assert raw.is_cut()


def test_a_stranger_that_goes_on_after_its_answer_is_cut_at_once_and_unheard() -> None:
    with reception() as broker:
        opens(broker)
        with Raw(broker.address, newcomer(broker), options={zmq.SNDTIMEO: 300}) as raw:
            raw.send(ENROL, {"id": 1})
            with contextlib.suppress(zmq.Again):  # nobody takes anything after the cut
                for number in range(1000):
                    raw.send(PUBLISH, {"s": "app.x", "id": number}, bytes(1000))
            assert raw.is_cut()
            heard = []
            while not raw.silent(0.05):
                heard.append(raw.hear()[0])
            assert heard in ([ENROLLED], [])  # cut at once, perhaps before the answer had left
        assert len(waiting(broker)) == 1


def test_a_flood_of_newcomers_fills_a_bounded_list_and_holds_up_nobody() -> None:
    with reception() as broker, Raw(broker.address, broker.keys["boss"]) as boss:
        opens(broker, 600)
        boss.hello()
        states = []
        for number in range(MAX_FROM_ADDRESS + 20):
            try:
                states.append(state(broker, newcomer(broker, f"flood{number}")))
            except NotAuthorised:
                states.append("refused by the handshake")
            assert boss.alive()
        assert states[:5] == ["pending"] * 5
        assert "refused by the handshake" in states
        assert len(waiting(broker)) <= MAX_PENDING


def test_a_stranger_that_says_nothing_is_cut() -> None:
    """A session that says nothing for as long is not: alice's."""
    with reception() as broker:
        opens(broker)
        with Raw(broker.address, newcomer(broker)) as mute:
            mute.event(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            start = time.monotonic()
            mute.event(zmq.EVENT_DISCONNECTED, patience=3 * STAY)
            assert time.monotonic() - start > STAY / 2


def test_a_torn_enrolment_file_closes_the_door_and_stops_nobody() -> None:
    with reception() as broker:
        opens(broker)
        (broker.folder / "enrolment.json").write_text("{")
        lamp = newcomer(broker)
        assert refused_by_handshake(broker, lamp)
        with pytest.raises(RemoteProtocolError, match=r"enrolment\.json: not an enrolment file"):
            asks(broker, signals.ENROL_LIST)
        (broker.folder / "enrolment.json").unlink()
        opens(broker)
        assert state(broker, lamp) == "pending"


def test_enrol_tells_a_broker_that_does_not_answer_from_one_that_refuses() -> None:
    with running_broker() as broker:
        lamp = newcomer(broker)
        broker.signal(signal.SIGSTOP)
        try:
            with pytest.raises(Unreachable, match="no broker answers"):
                join.enrol(broker.address, lamp, timeout=0.3)
        finally:
            broker.signal(signal.SIGCONT)
        with pytest.raises(NotAuthorised):
            join.enrol(broker.address, lamp)
    with pytest.raises(Unreachable, match="no broker answers"):
        join.enrol(broker.address, lamp)


def test_a_folder_that_another_program_holds_is_told_and_uses_up_no_token() -> None:
    with reception() as broker:
        secret = token(broker)
        lamp = newcomer(broker)
        holder = os.open(broker.folder, os.O_RDONLY)
        try:
            fcntl.flock(holder, fcntl.LOCK_EX)
            with pytest.raises(RemoteProtocolError, match="could not save it") as caught:
                join.enrol(broker.address, lamp, "lamp", secret)
            assert caught.value.code == 500
        finally:
            os.close(holder)
        assert state(broker, lamp, secret) == "accepted"


# The command line, on the folder of a broker that runs or does not.


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


def test_a_key_that_was_forbidden_on_disk_does_not_come_back_with_the_next_newcomer() -> None:
    """Nobody told the broker with SIGHUP; it notices when it is about to save its own list."""
    with reception() as broker:
        bad, lamp = newcomer(broker, "bad"), newcomer(broker)
        assert state(broker, bad, token(broker)) == "accepted"
        with Raw(broker.address, bad) as raw:
            raw.hello()
            assert run_cli("forbid", str(broker.folder), to_hex(bad.public)).returncode == 0
            secret = token(broker)
            with pytest.raises(RemoteProtocolError, match="try again"):
                join.enrol(broker.address, lamp, "lamp", secret)
            assert raw.is_cut()
        assert state(broker, lamp, secret) == "accepted"
        found = keystore.load_access(broker.folder / "access.json")
        assert lamp.public in found
        assert bad.public not in found


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


def test_no_secret_is_in_the_log_or_the_arguments() -> None:
    with running_broker(boss="admin") as broker:
        secret = token(broker)
        join.enrol(broker.address, newcomer(broker), "lamp", secret)
        assert secret not in broker.log
        assert broker.process is not None
        assert os.fsencode(secret) not in Path(f"/proc/{broker.process.pid}/cmdline").read_bytes()


def test_strangers_that_pour_in_large_messages_are_cut_within_a_memory_bound() -> None:
    """The bound: what libzmq takes in from a connection before the broker's loop has cut it."""
    with reception() as broker, Raw(broker.address, broker.keys["boss"]) as boss:
        opens(broker, 600)
        boss.hello()
        before = broker.rss
        for number in range(20):
            options = {zmq.SNDTIMEO: 300, zmq.SNDHWM: 10}  # nobody takes anything after the cut
            with Raw(broker.address, newcomer(broker, f"s{number}"), options=options) as raw:
                raw.send(ENROL, {"id": 1})
                with contextlib.suppress(zmq.Again):
                    for _ in range(60):
                        raw.send(PUBLISH, {"s": "app.x"}, bytes(1 << 20))
                assert raw.is_cut()
            assert boss.alive()
        assert len(waiting(broker)) == 20
        assert broker.peak_rss - before < 150 << 20
