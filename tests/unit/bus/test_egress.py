"""Whose the sockets of a process are; what the kernel makes of it is in tests/system/test_egress.py."""

import pytest

from bus import egress


def test_without_a_user_sockets_are_the_process_s_own() -> None:
    with egress.Egress() as none:
        assert none.uid is None
    assert egress.chosen("none").uid is None


def test_auto_never_fails_whoever_runs_it() -> None:
    assert egress.chosen("auto").uid == (egress.UID if egress.possible(egress.UID) else None)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "4294967295", "99999999999", "²"])
def test_what_is_no_user_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither a uid"):
        egress.chosen(text)


def test_a_user_that_cannot_be_had_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(egress, "possible", lambda uid: False)
    with pytest.raises(ValueError, match="CAP_SETUID: run it as root, or say none"):
        egress.chosen("4711")
    assert egress.chosen("auto").uid is None


@pytest.mark.parametrize(
    "endpoint",
    ["tcp://10.7.0.2:7600", "tcp://0.0.0.0:7600", "tcp://*:7600", "tcp://[2001:db8::1]:7600", "tcp://bus.example:1"],
)  # fmt: skip
def test_connections_with_a_broker_that_others_reach_are_the_links_users(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "possible", lambda uid: True)
    found = egress.of_bus(endpoint)
    assert found is not None
    assert found.uid == egress.UID
    monkeypatch.setattr(egress, "possible", lambda uid: False)
    assert egress.of_bus(endpoint) is None


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1:7600", "tcp://[::1]:7600", "tcp://localhost:7600", "ipc:///run/b"]
)
def test_connections_with_a_broker_of_this_machine_alone_are_as_they_were(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "possible", lambda uid: True)
    assert egress.of_bus(endpoint) is None
