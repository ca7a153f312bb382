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
