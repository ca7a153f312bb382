"""How a program begins, whatever becomes of its keeper meanwhile."""

import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.instance import alive, until
from tests.support.keeping import Folder, children
from viscript import processes
from viscript.errors import Failed
from viscript.keeping import kernel, start
from viscript.keeping.child import Identity
from viscript.keeping.output import Pipe
from viscript.keeping.start import StartProblem
from viscript.nursery import Nursery, nursery
from viscript.processes import Fate


@pytest.mark.parametrize("nice", [None, 1])
def test_a_program_whose_pid_cannot_be_written_down_is_ended(tmp_path, nice):
    spec = {
        "argv": ["/bin/sleep", "1000"], "cwd": "/", "limits": {}, "nice": nice, "umask": 0o077,
        "lent": {}, "terminal": False,
    }  # fmt: skip
    output = Pipe.make(str(tmp_path / "output"))
    pids: list[int] = []

    def full(pid: int) -> None:
        pids.append(pid)
        raise OSError(28, "No space left on device")

    with pytest.raises(StartProblem, match="No space left"):
        start.spawn(spec, {}, Identity("", ""), output, full)
    os.close(output.fileno())
    assert not alive(pids[0])


def test_a_program_does_not_begin_where_there_is_no_room_for_its_pid(folder, tmp_path):
    (folder.path / "state.json.new").mkdir(parents=True)
    report = folder.shell(f"echo > {tmp_path}/begun")
    assert (report.state, report.error) == ("failed", "Is a directory")
    assert not (tmp_path / "begun").exists()


@pytest.mark.parametrize("nice", [None, 1])
def test_a_keeper_killed_at_any_moment_of_the_start_leaves_nothing_unknown(folder, nice):
    folder.shell("true")  # from now on there is what keepers are forked from
    folder.wait("gone")
    for attempt in range(15):
        seconds = f"{os.getpid()}{attempt:02}"  # tells this program from all others

        def begin(seconds: str = seconds) -> None:
            with suppress(Failed):  # its keeper was killed before it could answer
                folder.spawn("/bin/sleep", seconds, nice=nice)

        before = set(children(nursery.pid))
        beginning = threading.Thread(target=begin)
        beginning.start()
        until(lambda before=before: set(children(nursery.pid)) - before)
        time.sleep(attempt / 2000)
        [keeper] = set(children(nursery.pid)) - before
        os.kill(keeper, signal.SIGKILL)
        beginning.join()
        until(lambda: processes.look(folder.path)[0] is not Fate.KEPT)
        fate, report = processes.look(folder.path)
        if fate is Fate.ENDED:
            until(lambda seconds=seconds: not _running("/bin/sleep", seconds))
        else:
            assert fate is Fate.ORPHANED
            until(lambda n=seconds, pid=report.pid: _running("/bin/sleep", n) == [pid])
            os.kill(report.pid, signal.SIGKILL)
            until(lambda: processes.look(folder.path)[0] is Fate.ENDED)
    (folder.path / "state.json").unlink(missing_ok=True)


def test_a_program_that_nobody_has_written_down_is_taken_over(folder):
    begun = folder.shell("sleep 1000 & wait; exit 5")
    folder.kill_keeper(begun)
    (folder.path / "state.json").unlink()  # as if its keeper had been killed before
    fate, report = processes.look(folder.path)
    assert (fate, report.pid, report.start_ticks) == (Fate.ORPHANED, begun.pid, begun.start_ticks)
    assert folder.spawn(adopt=report).pid == begun.pid
    os.kill(begun.pid, signal.SIGKILL)
    assert folder.wait("gone").left == []


def test_what_has_no_environment_yet_is_waited_for(monkeypatch):
    with subprocess.Popen(
        ["/bin/sleep", "1000"], env={"M": "1"}, start_new_session=True
    ) as process:
        looks: list[int] = []

        def bears(pid: int, *variables: str) -> bool:  # at first it has not even that
            looks.extend([pid] if pid == process.pid else [])
            return len(looks) > 2 and kernel_bears(pid, *variables)

        kernel_bears = kernel._bears
        monkeypatch.setattr(kernel, "_bears", bears)
        monkeypatch.setattr(kernel, "_is_being_born", lambda pid: pid == process.pid)
        assert (kernel.leader_bearing("M=1") or (0, 0))[0] == process.pid
        monkeypatch.undo()
        assert not kernel._is_being_born(process.pid)
        process.kill()
        process.wait()
        assert kernel.leader_bearing("M=1") is None


def _running(*argv: str) -> list[int]:
    wanted = "\0".join([*argv, ""]).encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes() == wanted:
                found.append(int(path.parent.name))
    return found


def test_a_daemon_that_is_killed_while_it_asks_leaves_no_keeper(folder):
    folder.shell("true")
    folder.wait("gone")
    ours, theirs = socket.socketpair()
    nursery._pass_on(theirs)
    theirs.close()
    ours.sendall(b'{"folder": "/')
    until(lambda: len(children(nursery.pid)) == 1)
    [forked] = children(nursery.pid)
    ours.close()
    until(lambda: not alive(forked))


def test_when_what_keepers_are_forked_from_hangs_the_next_is_forked_from_another(
    folder, tmp_path, monkeypatch
):
    first = folder.shell("sleep 1000")
    hangs = nursery.pid
    os.kill(hangs, signal.SIGSTOP)
    monkeypatch.setattr("viscript.nursery.TIMEOUT", 0.2)
    (tmp_path / "b").mkdir()
    other = Folder(tmp_path / "b")
    with pytest.raises(Failed, match="has not come up"):
        other.shell("exit 3")
    monkeypatch.undo()
    assert not alive(hangs)
    other.shell("exit 3")
    assert other.wait("gone").code == 3
    assert alive(first.pid)
    assert processes.look(folder.path)[0] is Fate.KEPT


def test_a_log_that_cannot_be_written_is_why_it_does_not_run(folder):
    folder.log.mkdir()
    report = folder.spawn("/bin/true")
    assert (report.state, report.error) == ("failed", f"{folder.log}: Is a directory")


def test_a_keeper_that_cannot_work_is_gone_when_it_is_heard_of(folder):
    folder.path.mkdir()
    (folder.path / "spec.json").mkdir()
    with pytest.raises(Failed, match="the keeper cannot work: IsADirectoryError"):
        folder.spawn("/bin/true")
    assert processes.look(folder.path)[0] is Fate.ENDED


def test_what_runs_is_not_given_up_when_its_log_cannot_be_opened(folder):
    first = folder.shell("sleep 1000")
    folder.kill_keeper(first)
    kept = folder.log.rename(folder.log.with_suffix(".kept"))
    folder.log.mkdir()
    with pytest.raises(Failed, match="Is a directory"):
        folder.spawn(adopt=processes.read_report(folder.path))
    assert processes.look(folder.path)[0] is Fate.ORPHANED
    folder.log.rmdir()
    kept.rename(folder.log)
    assert folder.spawn(adopt=processes.read_report(folder.path)).pid == first.pid


def test_keepers_forked_beforehand_take_what_comes_and_end_with_the_daemon(tmp_path):
    fresh = Nursery()
    fresh.warm_up()
    fresh.prepare(3)
    until(lambda: len(children(fresh.pid)) == 3)
    waiting = set(children(fresh.pid))
    begun: list[int] = []
    while len(waiting.intersection(begun)) < 2:  # what they are forked from takes some itself
        assert len(begun) < 20
        (tmp_path / str(len(begun))).mkdir()
        made = Folder(tmp_path / str(len(begun)))
        made.path.mkdir()
        request = {"folder": str(made.path), "spec": made.spec("/bin/true").fields(None), "env": {}}
        begun.append(fresh.ask(request)["state"]["keeper_pid"])
    assert len(set(begun)) == len(begun)
    until(lambda: not any(alive(pid) for pid in begun))
    [spare] = children(fresh.pid)
    fresh.close()
    until(lambda: not alive(spare))
