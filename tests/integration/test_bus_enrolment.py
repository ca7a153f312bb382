"""How a machine comes in, against the real broker: by token, by fingerprint, and how it does not."""

import fcntl
import os
import signal
from pathlib import Path

import pytest

from bus import NotAuthorised, join, keystore, signals
from bus.errors import RemoteProtocolError, Unreachable
from bus.identity import fingerprint, to_hex
from tests.support.broker import run_cli, running_broker, until
from tests.support.raw import ERROR, HELLO, Raw
from tests.support.reception import (
    asks,
    newcomer,
    opens,
    reception,
    refused_by_handshake,
    roles_of,
    state,
    token,
    waiting,
)


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


def test_no_secret_is_in_the_log_or_the_arguments() -> None:
    with running_broker(boss="admin") as broker:
        secret = token(broker)
        join.enrol(broker.address, newcomer(broker), "lamp", secret)
        assert secret not in broker.log
        assert broker.process is not None
        assert os.fsencode(secret) not in Path(f"/proc/{broker.process.pid}/cmdline").read_bytes()
