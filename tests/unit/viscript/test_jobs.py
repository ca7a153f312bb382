"""The book of jobs: queues, batches, what takes whose place; by hypothesis, and the rules one by one."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from viscript import jobs
from viscript.errors import Conflict, NotFound
from viscript.jobs import ENDED, KEPT, OVERRIDING, Book, Order, Place
from viscript.protocol import Job, Step

KEY = "k" * 40


def order(verb: str, *apps: str, batch: int = 0, request: str = "", key: str = KEY) -> Order:
    return Order(verb, key, "me", request, tuple(Step(app) for app in apps), apps, batch)


def begin_all(book: Book) -> list[Place]:
    found = book.runnable()
    for place in found:
        book.begin(place, 0.0)
    return found


def test_stopping_a_never_waits_for_b():
    book = Book()
    book.open(1, order("stop", "b"), 0.0)
    begin_all(book)
    book.open(2, order("stop", "a"), 0.0)
    assert begin_all(book) == [Place(2, 0)]


def test_two_orders_for_one_app_are_done_one_after_the_other():
    book = Book()
    book.open(1, order("restart", "a"), 0.0)
    book.open(2, order("restart", "a"), 0.0)
    assert begin_all(book) == [Place(1, 0)]
    assert begin_all(book) == []
    book.settle(Place(1, 0), "done", 1.0)
    assert begin_all(book) == [Place(2, 0)]


def test_a_stop_takes_the_place_of_a_start_that_is_not_done_and_both_are_answered():
    book = Book()
    book.open(1, order("start", "a"), 0.0)
    begin_all(book)
    book.open(2, order("stop", "a"), 1.0)
    assert book.get(1).state == "cancelled"
    assert book.get(1).steps[0].text == "job 2 came in between"
    assert begin_all(book) == [Place(2, 0)]
    book.settle(Place(2, 0), "done", 2.0)
    assert book.get(2).state == "done"


def test_a_start_waits_for_the_stop_before_it():
    book = Book()
    book.open(1, order("stop", "a"), 0.0)
    begin_all(book)
    book.open(2, order("start", "a"), 0.0)
    assert begin_all(book) == []


def test_a_batch_goes_on_one_by_one_and_ends_at_the_first_failure():
    book = Book()
    book.open(1, order("restart", "a", "b", "c", batch=1), 0.0)
    assert begin_all(book) == [Place(1, 0)]
    assert begin_all(book) == []
    book.settle(Place(1, 0), "done", 1.0)
    assert begin_all(book) == [Place(1, 1)]
    book.settle(Place(1, 1), "failed", 2.0, "crashed")
    job = book.get(1)
    assert [step.state for step in job.steps] == ["done", "failed", "cancelled"]
    assert job.steps[2].text == "not begun, as b failed"
    assert (job.state, job.ended) == ("failed", 2.0)


def test_the_same_request_of_the_same_key_is_the_same_job():
    book = Book()
    book.open(1, order("start", "a", request="r"), 0.0)
    assert book.known(KEY, "r").job == 1
    assert book.known("other", "r") is None
    assert book.known(KEY, "") is None
    book.settle(Place(1, 0), "done", 5.0)
    book.prune(5.0 + KEPT - 1)
    assert book.known(KEY, "r").state == "done"
    assert book.prune(5.0 + KEPT) == [1]
    assert book.known(KEY, "r") is None
    with pytest.raises(NotFound, match="10 minutes"):
        book.get(1)


def test_cancel_begins_nothing_more_and_calls_nothing_off():
    book = Book()
    book.open(1, order("restart", "a", "b", batch=1), 0.0)
    begin_all(book)
    book.cancel(1, "me", 1.0)
    job = book.get(1)
    assert [step.state for step in job.steps] == ["working", "cancelled"]
    assert job.ended is None
    book.settle(Place(1, 0), "done", 2.0)
    assert book.get(1) == job
    assert (job.state, job.ended) == ("cancelled", 2.0)
    with pytest.raises(Conflict, match="has ended"):
        book.cancel(1, "me", 3.0)


def test_what_an_earlier_daemon_had_begun_is_at_work_and_nothing_more_begins():
    book = Book()
    steps = [Step("a", "done", since=3.0), Step("b", "working", since=4.0, id=2), Step("c")]
    (place,) = book.restore(Job(7, "stop", "working", "me", KEY, 1.0, steps=steps), "r")
    job = book.known(KEY, "r")
    assert (job.job, job.state, job.ended) == (7, "working", None)
    assert [step.state for step in job.steps] == ["done", "working", "cancelled"]
    assert job.steps[2].text == "the daemon ended before it was begun"
    assert book.runnable() == []
    # Who comes later waits in the same queue.
    later = Order("restart", KEY, "me", "", (Step("b", id=2),), ("id:2",))
    book.open(8, later, 5.0)
    assert book.runnable() == []
    book.settle(place, "done", 6.0)
    assert (book.get(7).state, book.get(7).ended) == ("cancelled", 6.0)
    assert book.runnable() == [Place(8, 0)]


def test_of_what_had_not_begun_nothing_is_left():
    book = Book()
    job = Job(7, "stop", "working", "me", KEY, 1.0, steps=[Step("a"), Step("b", "done")])
    assert book.restore(job, "r") == []
    assert (book.get(7).state, book.get(7).ended) == ("cancelled", 1.0)


def test_what_came_of_a_job_need_not_stay_in_the_book():
    shelf: dict[int, Job] = {}
    book = Book(shelf.get)
    shelf[1] = book.open(1, order("stop", request="r"), 0.0)
    book.let_go(1)
    assert (book.get(1), list(book), book.known(KEY, "r")) == (shelf[1], [shelf[1]], shelf[1])
    shelf.clear()  # it could not be read
    assert list(book) == []
    with pytest.raises(NotFound, match="no job 1"):
        book.get(1)


def test_what_is_at_work_is_not_let_go():
    book = Book()
    book.open(1, order("stop", "a"), 0.0)
    book.let_go(1)
    assert book.get(1).state == "working"


def test_nobody_fills_the_book():
    book = Book()
    for number in range(jobs.MAX_OPEN):
        book.open(number, order("start", "a"), 0.0)
    with pytest.raises(Conflict, match="job ls"):
        book.open(1000, order("start", "a"), 0.0)
    book.open(1001, order("start", "a", key="other"), 0.0)
    with pytest.raises(Conflict, match="select fewer"):
        book.open(1002, order("start", *["a"] * (jobs.MAX_STEPS + 1), key="other"), 0.0)


def test_only_so_many_results_are_kept_the_latest(monkeypatch):
    monkeypatch.setattr(jobs, "MAX_KEPT", 3)
    book = Book()
    for number in range(6):
        book.open(number, order("stop", "a", request=str(number)), 0.0)
        begin_all(book)
        book.settle(Place(number, 0), "done", 1.0)
    assert book.prune(1.0) == [0, 1, 2]
    assert book.known(KEY, "2") is None
    assert book.known(KEY, "3").job == 3


class AnyOrder(RuleBasedStateMachine):
    """Whatever is asked for and however it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.now = 0.0
        self.number = 0

    @rule(
        verb=st.sampled_from(["start", "stop", "restart", "kill"]),
        apps=st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True),
        batch=st.integers(0, 2),
    )
    def ask(self, verb: str, apps: list[str], batch: int) -> None:
        self.number += 1
        self.book.open(self.number, order(verb, *apps, batch=batch), self.now)

    @rule()
    def go_on(self) -> None:
        begin_all(self.book)

    @precondition(lambda self: self.working())
    @rule(data=st.data(), state=st.sampled_from(["done", "failed", "unknown"]))
    def settle(self, data, state) -> None:
        self.now += 1
        self.book.settle(data.draw(st.sampled_from(self.working())), state, self.now)

    @precondition(lambda self: any(job.ended is None for job in self.book))
    @rule(data=st.data())
    def cancel(self, data) -> None:
        open_ = [job.job for job in self.book if job.ended is None]
        self.book.cancel(data.draw(st.sampled_from(open_)), "me", self.now)

    @rule(passed=st.floats(1, 2 * KEPT))
    def forget(self, passed: float) -> None:
        self.now += passed
        for number in self.book.prune(self.now):
            with pytest.raises(NotFound):
                self.book.get(number)

    def working(self) -> list[Place]:
        return [
            Place(job.job, index)
            for job in self.book
            for index, step in enumerate(job.steps)
            if step.state == "working"
        ]

    @invariant()
    def one_at_a_time(self) -> None:
        apps = [self.book.step(place).app for place in self.working()]
        assert len(apps) == len(set(apps))

    @invariant()
    def a_job_has_ended_when_all_its_steps_have(self) -> None:
        for job in self.book:
            assert (job.ended is not None) == all(step.state in ENDED for step in job.steps)
            if job.state == "done":
                assert {step.state for step in job.steps} == {"done"}

    @invariant()
    def batches_are_kept(self) -> None:
        for job in self.book:
            if job.ended is not None:
                continue
            batch = self.book._open[job.job].order.batch
            under_way = sum(1 for step in job.steps if step.state == "working")
            assert not batch or under_way <= batch

    @invariant()
    def nothing_overriding_waits_for_what_it_overrides(self) -> None:
        for places in self.book._queues.values():
            verbs = [self.book.get(place.job).verb for place in places]
            last = max((i for i, verb in enumerate(verbs) if verb in OVERRIDING), default=-1)
            assert all(verb in OVERRIDING for verb in verbs[: last + 1])

    @invariant()
    def what_is_counted_is_there(self) -> None:
        open_ = [job for job in self.book if job.ended is None]
        assert self.book._working[KEY] == len(open_) == len(self.book._open)
        assert sorted(self.book._order) == sorted(self.book._ended)

    def teardown(self) -> None:
        """Whatever was asked for comes to an end once what is under way does."""
        for _ in range(10_000):
            begin_all(self.book)
            if not (working := self.working()):
                break
            self.book.settle(working[0], "done", self.now)
        assert all(job.ended is not None for job in self.book)
        assert not self.book._queues


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
