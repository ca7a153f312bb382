"""Contexts on disk, and which broker a command means."""

import os
import stat
from pathlib import Path

import msgspec
import pytest

from bus import keystore
from viscript.commands.bus.where import find
from viscript.contexts import Context, Contexts, address
from viscript.errors import BadConfig, BadUsage, Conflict, Denied, NoDaemon, NotFound
from viscript.protocol import DaemonInfo

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
OTHER = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
WORK = Context("tcp://10.0.0.5:7600", KEY, "/keys/work.key")


@pytest.fixture
def known(tmp_path):
    return Contexts(tmp_path / "viscript")


def test_a_context_is_read_as_it_was_saved_and_is_for_its_owner_only(known):
    path = known.save("work", WORK)
    assert known.load("work") == WORK
    assert known.names() == ["work"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_nothing_secret_is_in_the_file(known, tmp_path):
    pair = keystore.create(tmp_path / "mine.key")
    path = known.save("work", Context(WORK.endpoint, KEY, str(tmp_path / "mine.key")))
    assert pair.secret not in path.read_text()


def test_a_context_is_replaced_only_when_told(known):
    known.save("work", WORK)
    with pytest.raises(Conflict, match="--force"):
        known.save("work", Context("tcp://h:1", OTHER, "/k"))
    known.save("work", Context("tcp://h:1", OTHER, "/k"), replace=True)
    assert known.load("work").broker_key == OTHER


def test_what_is_not_there_is_told_with_the_nearest_name(known):
    known.save("work", WORK)
    with pytest.raises(NotFound, match="did you mean 'work'"):
        known.load("wrok")
    with pytest.raises(NotFound):
        known.remove("other")
    assert Contexts(Path("/no/such/folder")).names() == []


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-x", "x" * 65, "ä", "a\n", ".x"])
def test_a_name_cannot_leave_the_folder(known, name):
    for act in (known.load, known.remove, lambda n: known.save(n, WORK), known.key_path):
        with pytest.raises(BadUsage):
            act(name)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{}", b"[]", b"null", b"\xff", b"[" * 10_000,
        b'{"endpoint": "tcp://h:1", "broker_key": "short", "key_file": "/k"}',
        b'{"endpoint": "nonsense", "broker_key": "%s", "key_file": "/k"}' % KEY.encode(),
        b'{"endpoint": "tcp://h:1", "broker_key": "%s", "key_file": "/k", "secret": "x"}' % KEY.encode(),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_with_the_way_out(known, text):
    path = known.save("work", WORK)
    path.write_bytes(text)
    with pytest.raises(BadConfig, match="context add work --force") as told:
        known.load("work")
    assert str(path) in str(told.value)


def test_a_file_without_end_is_refused(known):
    path = known.save("work", WORK)
    path.write_bytes(b" " * (65 << 10))
    with pytest.raises(BadConfig, match="larger than"):
        known.load("work")


def test_a_file_that_others_may_change_names_no_broker(known):
    path = known.save("work", WORK)
    path.chmod(0o622)
    with pytest.raises(Denied, match="chmod 600"):
        known.load("work")


def test_the_chosen_one_is_forgotten_with_its_context(known):
    known.save("work", WORK)
    with pytest.raises(NotFound):
        known.select("other")
    known.select("work")
    assert known.selected == "work"
    known.remove("work")
    assert known.selected is None
    known.select(None)


@pytest.mark.parametrize(
    "endpoint", ["", "tcp://", "tcp://h", "h:1", "http://h:1", "tcp://h:1/x", "tcp://h:1\n", "tcp://h:123456"]
)  # fmt: skip
def test_what_is_no_endpoint_is_refused(endpoint):
    with pytest.raises(BadUsage, match="not an endpoint"):
        address(endpoint, KEY)


# Which one is meant.


@pytest.fixture
def home(tmp_path):
    """A home with a broker, and another one."""
    for name, port in (("one", 1), ("two", 2)):
        folder = tmp_path / name
        folder.mkdir()
        info = DaemonInfo(1, OTHER, f"tcp://127.0.0.1:{port}", KEY, "c", 0.0)
        (folder / "daemon.json").write_bytes(msgspec.json.encode(info))
    return tmp_path


def meant(known, home, context=None, option=None, **environment):
    home_option = str(home / option) if option else None
    variables = {
        k: str(home / v) if k.endswith("HOME") and v else v for k, v in environment.items()
    }
    return find(context, home_option, variables, known).address.endpoint


def test_options_go_before_the_environment_and_that_before_what_was_chosen(known, home):
    known.save("work", WORK)
    known.save("lab", Context("tcp://lab:1", KEY, "/k"))
    known.select("lab")
    both = {"VISCRIPT_CONTEXT": "work", "VISCRIPT_HOME": "one"}
    assert meant(known, home, "lab", **both) == "tcp://lab:1"
    assert meant(known, home, option="two", **both) == "tcp://127.0.0.1:2"
    assert meant(known, home, **both) == "tcp://10.0.0.5:7600"
    assert meant(known, home, VISCRIPT_HOME="one") == "tcp://127.0.0.1:1"
    assert meant(known, home, VISCRIPT_CONTEXT="", VISCRIPT_HOME="") == "tcp://lab:1"


def test_two_brokers_at_once_are_refused(known, home):
    with pytest.raises(BadUsage, match="give one"):
        meant(known, home, "lab", "one")


def test_in_a_home_the_admin_key_is_used_only_where_it_is_needed(known, home):
    usual = find(None, str(home / "one"), {}, known)
    admin = find(None, str(home / "one"), {}, known, admin=True)
    assert (usual.key_file.name, admin.key_file.name) == ("cli.key", "admin.key")


def test_a_home_in_which_nothing_runs_is_told_with_both_ways_out(known, tmp_path):
    with pytest.raises(NoDaemon, match="viscript up, or name a broker"):
        find(None, str(tmp_path / "empty"), os.environ, known)
