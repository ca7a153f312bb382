"""One run of a launch, without a keeper."""

import asyncio
import time
from pathlib import Path

from viscript.generation import Generation
from viscript.rules import STOP


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
