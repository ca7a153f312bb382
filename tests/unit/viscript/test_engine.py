"""What a daemon makes of what an earlier one left."""

import asyncio

import pytest

from viscript.engine import Engine, launch_of
from viscript.home import Home
from viscript.preparing import Prepared
from viscript.records import Record
from viscript.state import Store
from viscript.supervision.states import State


@pytest.mark.parametrize("state", [State.BLOCKED, State.STARTING, State.STOPPING])
async def test_what_was_to_stop_before_it_had_begun_is_not_started_by_the_next_daemon(
    tmp_path, state
):
    store = Store(tmp_path / "db")
    record = store.add(Record(id=0, app="a", state=state, key="k", since=1.0, args=[], started=1.0,
                              slot="a", session=1, role="app", stop=True))  # fmt: skip

    async def prepare(_number: int) -> Prepared:
        raise AssertionError("it was started")

    def program(_number: int) -> Prepared:
        raise AssertionError("it was looked up to be started")

    async with asyncio.TaskGroup() as tasks:
        engine = Engine(Home(tmp_path), store, tasks, prepare, program, lambda _: None, {})
        engine.records[record.id] = record
        engine.take_over(launch_of(record))
    assert (record.state, record.live) == (State.EXITED, False)
    assert not engine.supervisor.launches
