"""The desk: orders are carried out by tasks, in the turn that the book gives them, and kept on disk."""

import asyncio

import pytest

from viscript.desk import Desk, Doing, Outcome
from viscript.errors import Failed, NotFound
from viscript.jobstore import JobStore
from viscript.protocol import Job, Step
from viscript.roles import Caller

ME = Caller("k" * 40, "me")


class Worker:
    """Notes what was begun; each waits until it is released."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.free: dict[str, asyncio.Event] = {}

    def doing(self, app: str, queue: str | None = None, error: Exception | None = None) -> Doing:
        async def act(step: Step) -> Outcome:
            self.begun.append(app)
            await self.free.setdefault(app, asyncio.Event()).wait()
            if error is not None:
                raise error
            return Outcome("done", "as wanted")

        return Doing(Step(app), queue or app, act)

    def release(self, *apps: str) -> None:
        for app in apps:
            self.free.setdefault(app, asyncio.Event()).set()


@pytest.fixture
async def tasks():
    async with asyncio.TaskGroup() as group:
        yield group


@pytest.fixture
def store(tmp_path):
    store = JobStore(tmp_path / "jobs.db")
    yield store
    store.close()


async def test_an_order_is_carried_out_though_nobody_waits(tasks, store):
    desk, worker = Desk(tasks, store), Worker()
    job = desk.order(ME, "stop", "r", [worker.doing("a"), worker.doing("b")])
    assert (job.state, job.by) == ("working", "me")
    worker.release("a", "b")
    done = await desk.wait(job.job, 10**6, 10.0)
    assert (done.state, [step.text for step in done.steps]) == ("done", ["as wanted"] * 2)
    assert desk.known(ME, "r").job == job.job


async def test_what_came_of_a_job_is_on_disk_and_in_memory_only_where_it_could_not_be_stored(
    tasks, store, monkeypatch
):
    desk, worker = Desk(tasks, store), Worker()
    worker.release("a")
    stored = desk.order(ME, "stop", "", [worker.doing("a")])
    assert (await desk.wait(stored.job, 10**6, 10.0)).state == "done"

    def full(_: Job) -> None:
        raise Failed("no room")

    monkeypatch.setattr(store, "save", full)
    kept = desk.order(ME, "stop", "", [worker.doing("a")])
    assert (await desk.wait(kept.job, 10**6, 10.0)).state == "done"
    store.drop([stored.job, kept.job])
    assert [job.job for job in desk.jobs()] == [kept.job]


async def test_what_was_overridden_before_its_turn_is_never_begun(tasks, store):
    desk, worker = Desk(tasks, store), Worker()
    first = desk.order(ME, "restart", "", [worker.doing("old a", "a"), worker.doing("old b", "b")])
    second = desk.order(ME, "stop", "", [worker.doing("new a", "a")])
    worker.release("new a", "old b")
    assert (await desk.wait(second.job, 10**6, 10.0)).state == "done"
    assert (await desk.wait(first.job, 10**6, 10.0)).state == "cancelled"
    assert worker.begun == ["old b", "new a"]


async def test_what_an_act_raises_is_its_failure_and_no_more(tasks, store, caplog):
    desk, worker = Desk(tasks, store), Worker()
    worker.release("a", "b", "c")
    doings = [
        worker.doing("a", error=NotFound("gone")),
        worker.doing("b", error=ZeroDivisionError()),
        worker.doing("c"),
    ]
    job = await desk.wait(desk.order(ME, "stop", "", doings).job, 10**6, 10.0)
    assert [(step.state, step.error) for step in job.steps] == [
        ("failed", "not_found"), ("failed", "failed"), ("done", ""),
    ]  # fmt: skip
    assert "fault of viscript" in job.steps[1].text
    assert "ZeroDivisionError" in caplog.text


async def test_the_next_daemon_finds_what_ended_and_calls_unknown_what_nobody_can_tell(tmp_path):
    path = tmp_path / "jobs.db"
    store, worker = JobStore(path), Worker()
    async with asyncio.TaskGroup() as group:
        desk = Desk(group, store)
        worker.release("a")
        done = await desk.wait(desk.order(ME, "stop", "r1", [worker.doing("a")]).job, 10**6, 10.0)
        open_ = desk.order(ME, "stop", "r2", [worker.doing("b"), worker.doing("c")])
        desk.close()
    store.close()
    store = JobStore(path)
    async with asyncio.TaskGroup() as group:
        desk = Desk(group, store)
        assert desk.get(done.job).state == "done"
        assert desk.known(ME, "r2").state == "working"
        desk.resume(lambda _, step: worker.doing(step.app).act if step.app == "c" else None)
        worker.release("c")
        resumed = await desk.wait(open_.job, 10**6, 10.0)
        assert [step.state for step in resumed.steps] == ["unknown", "done"]
        assert "the daemon ended meanwhile" in resumed.steps[0].text
        again = desk.order(ME, "stop", "r3", [])
        assert again.job == open_.job + 1
        assert again.state == "done"
    store.close()


async def test_waiting_ends_in_time_with_what_is_known(tasks, store):
    desk, worker = Desk(tasks, store), Worker()
    job = desk.order(ME, "stop", "", [worker.doing("a")])
    same = await desk.wait(job.job, 10**6, 0.01)
    assert same.state == "working"
    worker.release("a")
    await desk.wait(job.job, 10**6, 10.0)


def test_a_database_that_is_none_says_what_to_do(tmp_path):
    (tmp_path / "jobs.db").write_bytes(b"no database" * 1000)
    with pytest.raises(Failed, match="move it away"):
        JobStore(tmp_path / "jobs.db")
