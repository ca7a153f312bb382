"""The keeper, run as the daemon runs it, without a daemon."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.instance import until
from tests.support.keeping import Folder
from viscript import processes
from viscript.errors import Failed
from viscript.keeping import kernel
from viscript.processes import Fate, Report


def test_output_and_exit_code_are_kept(folder):
    assert folder.spawn("/bin/sh", "-c", "echo out; echo err >&2; exit 42").pid
    report = folder.wait("gone")
    assert (report.code, report.signal, report.left) == (42, None, [])
    assert folder.log.read_text() == "out\nerr\n"
    assert not folder.ctl.exists()


def test_a_signal_is_kept(folder):
    report = folder.spawn("/bin/sleep", "100")
    os.kill(report.pid or 0, signal.SIGKILL)
    assert folder.wait("gone").signal == signal.SIGKILL


def test_what_cannot_be_executed_fails_with_its_errno(folder):
    report = folder.spawn("/no/such/program")
    assert (report.state, report.errno, report.error) == ("failed", 2, "No such file or directory")


@pytest.mark.parametrize("nice", [None, 1])
def test_a_program_gets_its_three_descriptors_and_no_other(folder, nice):
    report = folder.spawn("/bin/sleep", "1000", nice=nice)
    output = str(folder.path / "output")
    wanted = {"0": "/dev/null", "1": output, "2": output}
    until(lambda: descriptors(report.pid) == wanted)  # at first it reads files of its own


def descriptors(pid: int) -> dict[str, str]:
    found = {}
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found[each.name] = str(each.readlink())
    return found


def test_a_second_keeper_is_refused(folder):
    folder.spawn("/bin/sleep", "100")
    state = (folder.path / "state.json").read_bytes()
    with pytest.raises(Failed, match="another keeper holds this launch"):
        folder.spawn("/bin/sleep", "100", adopt=processes.read_report(folder.path))
    assert (folder.path / "state.json").read_bytes() == state


def test_stop_is_term_then_kill(folder):
    folder.spawn("/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    while "ready" not in folder.log.read_text():
        time.sleep(0.02)
    folder.order(do="stop", grace=0.3)
    report = folder.wait("gone")
    assert (report.signal, report.killed) == (signal.SIGKILL, True)


def test_children_that_hide_are_found(folder):
    script = "setsid sh -c 'trap \"\" TERM; sleep 1000' & sleep 0.3; exit 5"
    folder.spawn("/bin/sh", "-c", script)
    assert folder.wait("exited").code == 5
    folder.order(do="stop", grace=0.2)
    report = folder.wait("gone")
    assert (report.code, report.left) == (5, [])


def test_a_signal_can_be_sent(folder):
    script = "trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.05; done"
    folder.spawn("/bin/sh", "-c", script)
    while "ready" not in folder.log.read_text():
        time.sleep(0.02)
    folder.order(do="signal", signal=int(signal.SIGUSR1))
    assert folder.wait("gone").code == 3
    assert "got" in folder.log.read_text()


def test_rubbish_on_its_socket_does_no_harm(folder):
    folder.spawn("/bin/sleep", "100")
    for rubbish in (b"\xff\n", b"[]\n", b"{}\n", b'{"do": "stop", "grace": "x"}\n', b"1\n"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder.ctl))
            client.sendall(rubbish)
            assert json.loads(client.recv(1 << 16).splitlines()[0])["state"] == "running"
    folder.order(do="ping")
    assert processes.look(folder.path)[0] is Fate.KEPT


def test_the_program_outlives_its_keeper_and_is_taken_over(folder):
    script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"
    first = folder.spawn("/bin/sh", "-c", script)
    folder.until("\n10\n")
    os.kill(first.keeper_pid, signal.SIGKILL)
    while processes.look(folder.path)[0] is Fate.KEPT:
        time.sleep(0.01)
    fate, report = processes.look(folder.path)
    assert fate is Fate.ORPHANED
    printed = len(folder.log.read_text().split())
    second = folder.spawn(adopt=report)
    assert (second.pid, second.start_ticks) == (first.pid, first.start_ticks)
    folder.until(f"\n{printed + 20}\n")
    folder.order(do="stop", grace=1)
    folder.wait("gone")
    numbers = [int(x) for x in folder.log.read_text().split()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_process_that_only_has_the_same_pid_is_not_taken_over(folder, tmp_path):
    report = folder.spawn("/bin/sleep", "100")
    other = Folder(tmp_path / "other")
    (tmp_path / "other").mkdir()
    forged = Report(**{
        **{name: getattr(report, name) for name in Report.__struct_fields__},
        "start_ticks": (report.start_ticks or 0) + 1,
    })  # fmt: skip
    assert other.spawn(adopt=forged).state == "failed"


def test_processes_are_read_whatever_their_name(tmp_path):
    assert kernel.process_stat(os.getpid())
    assert kernel.process_stat(2**22 + 1) is None


def test_what_a_keeper_of_an_earlier_version_left_is_taken_over(folder):
    read, write = os.pipe()
    both = os.open(f"/proc/self/fd/{write}", os.O_RDWR)  # as that one did it, without a name
    script = "trap 'echo term; exit 8' TERM; echo begun; while :; do sleep 0.05; done"
    program = subprocess.Popen(["/bin/sh", "-c", script], stdout=both, start_new_session=True)
    os.close(write)
    os.close(both)
    found = kernel.process_stat(program.pid)
    left = {
        "proto": 1, "id": "1", "generation": 1, "state": "running", "pid": program.pid,
        "start_ticks": found[3], "boot_id": kernel.boot_id(), "keeper_pid": 1, "code": None,
        "signal": None, "errno": None, "error": None, "killed": False, "started": 5.0, "ended": None,
        "left": [],
    }  # fmt: skip
    folder.path.mkdir()
    (folder.path / "state.json").write_text(json.dumps(left))
    fate, report = processes.look(folder.path)
    assert fate is Fate.ORPHANED
    assert folder.spawn(adopt=report).pid == program.pid
    os.close(read)
    folder.until("begun")
    folder.order(do="stop", grace=10)
    assert folder.wait("gone").code == 8
    assert program.wait() == 8
    assert folder.log.read_text().endswith("term\n")


def test_the_lock_file_that_keepers_had_before_counts_as_well(tmp_path):
    (tmp_path / "spec.json").write_text("{}")
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert processes.look(tmp_path)[0] is Fate.KEPT
    assert processes.look(tmp_path)[0] is Fate.ENDED
