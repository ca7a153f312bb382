"""Usage: whose process is whose, and rates between two readings."""

import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from viscript.meter import Reading, Target, usage
from viscript.usage import Root, Sample, owners_of, scan

ROOTS = {1: Root(keeper=10, leader=11), 2: Root(keeper=20, leader=21)}


def test_a_process_belongs_to_the_keeper_it_hangs_below_or_the_session_it_is_in():
    table = {
        1: (0, 1), 10: (1, 10), 20: (1, 20),
        11: (10, 11),  # the program
        12: (11, 11),  # its child
        13: (10, 13),  # a grandchild with a session of its own, which the keeper has adopted
        14: (13, 13),
        15: (1, 11),  # in the session, after its keeper was killed
        21: (20, 21), 22: (21, 22),
        99: (1, 99),
    }  # fmt: skip
    assert owners_of(table, ROOTS) == {11: 1, 12: 1, 13: 1, 14: 1, 15: 1, 21: 2, 22: 2}


@given(
    st.dictionaries(
        st.integers(1, 30), st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=30
    )
)
def test_whatever_proc_shows_every_process_has_one_owner_at_most_and_the_walk_ends(table):
    owners = owners_of(table, ROOTS)
    assert set(owners) <= set(table)
    for pid, number in owners.items():
        root, (above, session) = ROOTS[number], table[pid]
        near = root.leader in {pid, session} or above == root.keeper
        assert near or owners.get(above) == number


def test_a_real_program_and_its_child_are_measured_together():
    code = "import subprocess, sys; subprocess.run(['sh', '-c', 'echo up; read x'])"
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, start_new_session=True, **pipes) as program:
        assert program.stdout.readline() == b"up\n"
        found = scan({7: Root(keeper=-1, leader=program.pid), 8: Root(-1, os.getpid())})
        program.stdin.close()
    assert found[7].processes == 2
    assert found[7].threads == 2
    assert found[7].rss > 1 << 20
    assert found[7].files >= 6
    assert found[8].processes >= 1


def target(number: int = 1) -> Target:
    return Target(number, "web", 11, ROOTS[1], "key")


def test_rates_are_differences_over_the_time_between():
    before = Reading(10.0, {1: Sample(cpu_seconds=1.0)}, {"key": (100, 200)})
    last = Reading(12.0, {1: Sample(cpu_seconds=2.0, processes=1)}, {"key": (300, 200)})
    found = usage(target(), before, last)
    assert (found.cpu_percent, found.bus_in_rate, found.bus_out_rate) == (50.0, 100.0, 0.0)
    assert (found.bus_in, found.seconds) == (300, 2.0)


def test_what_began_anew_has_no_negative_rate():
    before = Reading(10.0, {1: Sample(cpu_seconds=9.0)}, {"key": (900, 0)})
    last = Reading(11.0, {1: Sample(cpu_seconds=0.5, processes=1)}, {"key": (1, 0)})
    found = usage(target(), before, last)
    assert found.cpu_percent == 0
    assert found.bus_in_rate == 0


def test_who_is_not_on_the_bus_has_no_bytes_there():
    found = usage(target(), Reading(1.0), Reading(2.0, {1: Sample(processes=1)}))
    assert found.bus_in is None
    assert found.bus_in_rate is None
