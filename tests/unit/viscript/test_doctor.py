"""What the doctor says of machines, good ones and bad ones."""

import pytest

from viscript.doctor import machine, model
from viscript.doctor.machine import BEGAN, MIB, Space

NOW = BEGAN + 1e6


@pytest.mark.parametrize(
    ("finding", "level", "says"),
    [
        (machine.python((3, 11, 0), "/python"), "ok", "3.11.0"),
        (machine.python((3, 10, 9), "/python"), "broken", "too old"),
        (machine.libzmq("27.0", None), "ok", "CURVE"),
        (machine.libzmq("27.0", "this libzmq was built without CURVE"), "broken", "without CURVE"),
        (machine.limits(1024, -1), "ok", "1024"),
        (machine.limits(-1, -1), "ok", "any number"),
        (machine.limits(1023, -1), "warning", "1023"),
        (machine.limits(255, -1), "broken", "255"),
        (machine.limits(4096, 100), "warning", "100 processes"),
        (machine.disk(Space("/x", 500 * MIB)), "ok", "500 MiB"),
        (machine.disk(Space("/x", 499 * MIB)), "warning", "499 MiB"),
        (machine.disk(Space("/x", 49 * MIB)), "broken", "49 MiB"),
        (machine.disk(Space("/x", 900 * MIB, 999)), "warning", "999 files"),
        (machine.clock(NOW, NOW - 5, "/x"), "ok", "plausible"),
        (machine.clock(NOW, NOW + 61, "/x"), "warning", "gone back"),
        (machine.clock(BEGAN - 86400 * 3, 0, "/x"), "broken", "3 days behind"),
        (machine.skew(0.5, "tcp://x"), "ok", "agrees"),
        (machine.skew(3, "tcp://x"), "warning", "3.0 s ahead"),
        (machine.skew(-61, "tcp://x"), "broken", "61.0 s behind"),
    ],
)
def test_a_machine_is_judged(finding, level, says):
    assert finding.level == level
    assert says in finding.text
    assert bool(finding.todo) == (level != "ok")


def test_the_exit_code_is_that_of_the_worst():
    well, warning = model.well("a", "x"), model.warning("b", "x", "", "do")
    assert model.exit_code([]) == model.exit_code([well]) == 0
    assert model.exit_code([well, warning, well]) == 1
    assert model.exit_code([model.broken("c", "x", "", "do"), warning]) == 2
