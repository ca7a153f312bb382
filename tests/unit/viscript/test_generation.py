"""One run of a launch, without a keeper."""

import asyncio
import time
from pathlib import Path

import pytest

from viscript.generation import UNSEEN, Generation, ended_unwatched
from viscript.processes import Report
from viscript.rules import STOP
from viscript.supervision.launch import Launch


async def asked() -> bool:
    return True


def generation(tmp_path: Path) -> Generation:
    return Generation(1, 1, tmp_path / "1", tmp_path / "ctl", tmp_path / "log")


async def test_who_was_asked_over_the_bus_and_does_not_end_hears_signals(tmp_path, monkeypatch):
    monkeypatch.setattr("viscript.generation.BUS_GRACE", 0.05)
    run = generation(tmp_path)
    await run.terminate(asked, STOP)
    assert (run.asked, run._steps) == ("stopped", STOP)


async def test_who_asks_for_time_is_waited_for_before_it_hears_signals(tmp_path, monkeypatch):
    monkeypatch.setattr("viscript.generation.BUS_GRACE", 0.05)
    run = generation(tmp_path)
    run._extended = time.monotonic() + 60.0
    asyncio.get_running_loop().call_later(0.2, run._ended.set)
    await run.terminate(asked, STOP)
    assert (run.asked, run._steps) == ("shut down over the bus", None)


def ended(**more: object) -> Report:
    usual = dict.fromkeys(Report.__struct_fields__)
    return Report(**{**usual, "state": "gone", "killed": False, **more})


@pytest.mark.parametrize(
    ("report", "launch", "told"),
    [
        (None, Launch(1, "a"), UNSEEN),
        (ended(state="running"), Launch(1, "a", stop=True), UNSEEN),
        (ended(code=3), Launch(1, "a"), ""),
        (ended(signal=9), Launch(1, "a"), ""),  # somebody else did that
        (ended(signal=15), Launch(1, "a", stop=True), "stopped"),
        (
            ended(signal=9, killed=True),
            Launch(1, "a", stop=True),
            "killed, as SIGTERM did not end it",
        ),
        (ended(code=0, killed=True), Launch(1, "a"), ""),  # only what it had left was killed
    ],
)
def test_how_it_ended_while_no_daemon_looked(report, launch, told):
    assert ended_unwatched(report, launch) == told
