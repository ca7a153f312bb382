"""How a keeper runs and ends a program, and what it hears from it."""

import os
import signal
import socket
import sys

import pytest

from tests.support.instance import alive, until
from tests.support.keeping import Folder
from viscript import processes
from viscript.keeping.notify import parse
from viscript.keeping.stopping import Stopping
from viscript.nursery import nursery
from viscript.processes import Fate
from viscript.rules import StopStep


def test_stop_steps_are_taken_one_after_the_other(folder):
    script = """trap 'echo int' INT; trap 'echo term; exit 4' TERM; echo ready
    while :; do sleep 0.05; done"""
    folder.shell(script, stop=(StopStep(signal.SIGINT, 0.2), StopStep(signal.SIGTERM, 10.0)))
    folder.until("ready")
    os.kill(
        processes.read_report(folder.path).keeper_pid, signal.SIGTERM
    )  # as for the keeper itself
    report = folder.wait("gone")
    assert (report.code, report.killed) == (4, False)
    told = [x for x in folder.log.read_text().split() if x != "Terminated"]
    assert told == ["ready", "int", "term"]


def test_a_program_that_stopped_itself_hears_the_stop(folder):
    folder.shell("trap 'exit 6' TERM; echo ready; kill -STOP $$; sleep 100")
    folder.until("ready")
    folder.order(do="stop", grace=10)
    assert folder.wait("gone").code == 6


def test_a_signal_for_the_group_reaches_its_children(folder):
    folder.shell("sh -c 'trap \"echo child; exit\" USR1; echo ready; while :; do sleep 0.05; done' & "
                 "trap : USR1; wait; wait; exit 3")  # fmt: skip
    folder.until("ready")
    folder.order(do="signal", signal=int(signal.SIGUSR1), group=True)
    assert folder.wait("gone").code == 3
    assert "child" in folder.log.read_text()


def test_limits_niceness_and_mask_are_the_programs_own(folder):
    script = "ulimit -n; ulimit -c; umask; cut -d' ' -f19 /proc/self/stat"
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    folder.shell(script, limits={"nofile": 64, "core": 0}, nice=niceness + 3, umask=0o027)
    folder.wait("gone")
    assert folder.log.read_text().split() == ["64", "0", "0027", str(niceness + 3)]


def test_what_goes_wrong_before_the_program_begins_is_told_as_itself(folder):
    report = folder.spawn("/bin/true", user="no-such-user")
    assert (report.state, report.error) == ("failed", "user no-such-user: there is no such user")
    report = folder.spawn("/bin/true", limits={"nofile": -2})
    assert report.error is not None
    assert report.error.startswith("limits.nofile: ")
    assert not folder.log.read_text()


NOTIFY = """
import os, socket, sys
client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
client.connect(os.environ["NOTIFY_SOCKET"])
client.send(b"READY=1\\nSTATUS=at \\x1b[31mwork\\nNONSENSE")
sys.stdin.read()
client.send(b"WATCHDOG=1")
client.send(b"\\xff\\xfe=\\n=\\n")
import time; time.sleep(100)
"""


def test_what_it_says_with_sd_notify_is_in_the_state(folder):
    report = folder.spawn(sys.executable, "-c", NOTIFY, notify=True)
    assert not report.ready or report.state == "running"
    until(lambda: processes.read_report(folder.path).watchdog)
    report = processes.read_report(folder.path)
    assert (report.ready, report.status) == (True, "at [31mwork")


def test_a_new_keeper_goes_on_listening_to_sd_notify(folder):
    script = "trap 'systemd' USR1; exec " + sys.executable + " -c '" + NOTIFY.replace(
        "sys.stdin.read()", "import signal; signal.sigwait([signal.SIGUSR1])"
    ).replace("import os, socket, sys", "import os, socket, sys, signal\n"
              "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])") + "'"  # fmt: skip
    first = folder.shell(script.replace("trap 'systemd' USR1; ", ""), notify=True)
    until(lambda: processes.read_report(folder.path).ready)
    folder.kill_keeper(first)
    folder.spawn(adopt=processes.read_report(folder.path), notify=True)
    assert processes.read_report(folder.path).ready
    socket_path = str(folder.ctl) + ".notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.sendto(b"STATUS=still heard", socket_path)
    until(lambda: processes.read_report(folder.path).status == "still heard")


@pytest.mark.parametrize(
    ("message", "news"),
    [
        (b"READY=1", {"ready": True}),
        (b"READY=0\nREADY", {}),
        (b"RELOADING=1\nREADY=1", {"ready": True}),
        (b"STATUS=" + b"x" * 4000, {"status": "x" * 200}),
        (b"WATCHDOG=1", {"watchdog": 5.0}),
        (b"EXTEND_TIMEOUT_USEC=2500000", {"extended": 2.5}),
        (b"EXTEND_TIMEOUT_USEC=99999999999999", {"extended": 3600.0}),
        (b"EXTEND_TIMEOUT_USEC=" + b"9" * 4000, {}),
        (b"EXTEND_TIMEOUT_USEC=-1\nEXTEND_TIMEOUT_USEC=1e9", {}),
        (b"MAINPID=1\n\x00\xff=\n", {}),
    ],
)
def test_notices_are_read_and_rubbish_is_not(message, news):
    assert parse(message, 5.0) == news


def test_processes_that_fled_are_found_by_a_new_keeper(folder):
    script = "setsid sh -c 'echo fled; exec sleep 1000' & while :; do sleep 0.05; done"
    first = folder.shell(script)
    folder.until("fled")
    folder.kill_keeper(first)  # so the one that fled is now no child of any keeper
    second = folder.spawn(adopt=processes.read_report(folder.path))
    os.kill(second.pid or 0, signal.SIGTERM)
    folder.wait("gone")
    assert processes._left(first) == []


def test_what_outlived_program_and_keeper_is_ended(folder):
    first = folder.shell("setsid sleep 1000 & echo begun; wait")
    folder.until("begun")
    until(lambda: len(processes._left(first)) == 1)
    os.kill(first.keeper_pid, signal.SIGKILL)
    os.kill(first.pid or 0, signal.SIGKILL)
    until(lambda: processes.look(folder.path)[0] is Fate.LEFT)
    processes.sweep(first)
    assert processes.look(folder.path)[0] is Fate.ENDED
    (folder.path / "state.json").unlink()


def test_the_exit_code_of_what_was_taken_over_is_known(folder):
    first = folder.shell("trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done")
    folder.until("ready")
    folder.kill_keeper(first)
    folder.spawn(adopt=processes.read_report(folder.path))
    os.kill(first.pid or 0, signal.SIGUSR1)
    assert folder.wait("gone").code == 7


def test_the_rules_of_a_program_outlive_its_keeper(folder):
    script = "trap 'echo int; exit 5' INT; trap '' TERM; echo ready; while :; do sleep 0.05; done"
    first = folder.shell(script, stop=(StopStep(signal.SIGINT, 10.0),))
    folder.until("ready")
    folder.kill_keeper(first)
    second = folder.spawn(adopt=processes.read_report(folder.path))
    os.kill(second.keeper_pid, signal.SIGTERM)
    folder.wait("gone")
    assert folder.log.read_text().endswith("int\n")


def test_keepers_outlive_what_they_were_forked_from(folder):

    report = folder.spawn("/bin/sleep", "100")
    os.kill(nursery.pid or 0, signal.SIGKILL)
    until(lambda: not alive(nursery.pid or 0))
    assert alive(report.keeper_pid)
    other = Folder(folder.path.parent / "other")
    other.path.parent.mkdir()
    assert other.spawn("/bin/true").pid  # another one is started
    other.wait("gone")
    assert processes.look(folder.path)[0] is Fate.KEPT


def test_a_megabyte_of_orders_without_an_end_is_cut_off(folder):
    folder.spawn("/bin/sleep", "100")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder.ctl))
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            client.sendall(b"x" * (10 << 20))
    folder.order(do="ping")


class Clocked:
    """Signals that are sent, with the seconds at which they are."""

    def __init__(self, *steps: tuple[int, float]) -> None:
        self.stopping = Stopping(list(steps))
        self.sent: list[tuple[float, int]] = []

    def pass_until(self, end: float) -> None:
        while (due := self.stopping.due) is not None and due <= end and len(self.sent) < 20:
            number = self.stopping.next_signal(due)
            assert number is not None
            self.sent.append((due, number))


def test_after_the_steps_comes_kill_until_nothing_is_left():
    clocked = Clocked((2, 1.0), (15, 2.0))
    clocked.stopping.ask(None, 10.0)
    clocked.pass_until(13.25)
    assert clocked.sent == [(10.0, 2), (11.0, 15), (13.0, 9), (13.1, 9), (13.2, 9)]
    assert not clocked.stopping.hopeless(15.0, 5.0)
    assert clocked.stopping.hopeless(18.1, 5.0)


def test_asked_again_it_comes_sooner_never_later():
    clocked = Clocked((15, 10.0))
    clocked.stopping.ask(None, 0.0)
    clocked.pass_until(1.0)
    clocked.stopping.ask([(15, 60.0)], 1.0)
    assert clocked.stopping.due == 10.0
    clocked.stopping.ask([(2, 1.0)], 2.0)
    clocked.pass_until(3.0)
    assert clocked.sent == [(0.0, 15), (2.0, 2), (3.0, 9)]
    clocked.stopping.ask([], 3.05)
    assert clocked.stopping.killing


def test_more_time_that_a_program_asks_for_counts_once_it_was_told_to_end():
    clocked = Clocked((15, 10.0), (2, 1.0))
    clocked.stopping.extend(1000.0)  # nobody has told it to end
    clocked.stopping.ask(None, 0.0)
    clocked.stopping.extend(1000.0)  # not yet
    clocked.pass_until(1.0)
    clocked.stopping.extend(5.0)  # less than it has
    assert clocked.stopping.due == 10.0
    clocked.stopping.extend(30.0)
    clocked.pass_until(31.0)
    assert clocked.sent == [(0.0, 15), (30.0, 2), (31.0, 9)]
    clocked.stopping.extend(1000.0)  # there is no more
    assert clocked.stopping.due == 31.1


ASKS = """
import os, signal, socket, time
client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
client.connect(os.environ["NOTIFY_SOCKET"])

def end(*_):
    client.send(b"EXTEND_TIMEOUT_USEC=60000000")
    time.sleep(0.5)
    os._exit(7)

signal.signal(signal.SIGTERM, end)
client.send(b"READY=1")
while True:
    time.sleep(100)
"""


def test_a_program_that_asks_for_time_to_end_is_not_killed(folder):
    steps = (StopStep(signal.SIGTERM, 0.2),)
    folder.spawn(sys.executable, "-c", ASKS, notify=True, stop=steps)
    until(lambda: processes.read_report(folder.path).ready)
    folder.order(do="stop", steps=[[15, 0.2]])
    report = folder.wait("gone")
    assert (report.code, report.killed) == (7, False)
