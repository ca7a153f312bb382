"""Homes: where they are, and that they are private."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from viscript import home
from viscript.errors import Conflict, Denied
from viscript.home import DaemonLock, Home, holder, is_locked, signal_holder


def test_where_a_home_is(tmp_path):
    assert home.find("/a", {"VISCRIPT_HOME": "/b"}).root == Path("/a")
    assert home.find(None, {"VISCRIPT_HOME": "/b"}).root == Path("/b")
    assert home.find("x/../y", {}).root == Path.cwd() / "y"
    assert home.find(None, {}).root.name == "viscript"


def test_folders_are_private(tmp_path):
    place = Home(tmp_path / "h")
    place.create()
    assert stat.S_IMODE(place.keys.stat().st_mode) == 0o700
    place.keys.chmod(0o755)
    with pytest.raises(Denied, match=f"chmod 700 {place.keys}"):
        place.create()


def test_a_home_that_others_may_write_is_refused(tmp_path):
    (tmp_path / "h").mkdir()
    (tmp_path / "h").chmod(0o777)
    with pytest.raises(Denied, match="open to other users"):
        Home(tmp_path / "h").create()


def test_a_home_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Denied, match="choose another --home"):
        Home(tmp_path / "file" / "h").create()


def test_sockets_of_a_deep_home_are_elsewhere():
    assert Home(Path("/h")).run == Path("/h/run")
    deep = Home(Path("/" + "x" * 90))
    assert len(str(deep.run)) < 60
    assert deep.run != Home(Path("/" + "y" * 90)).run


def test_one_daemon_a_home(tmp_path):
    place = Home(tmp_path)
    assert not is_locked(place.lock)
    lock = DaemonLock(place)
    assert is_locked(place.lock)
    with pytest.raises(Conflict, match="a daemon runs here already"):
        DaemonLock(place)
    lock.release()
    assert not is_locked(place.lock)
    DaemonLock(place).release()


HOLD = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(); time.sleep(60)"


def test_only_who_holds_the_lock_is_told_whatever_a_file_says(tmp_path):
    lock = tmp_path / "lock"
    assert not signal_holder(lock, signal.SIGTERM)
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with lock.open():  # who only has it open is not meant
            assert holder(lock) == process.pid != os.getpid()
            assert signal_holder(lock, signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
    assert holder(lock) is None
    assert not signal_holder(lock, signal.SIGTERM)
