"""When sessions are called: never too late, and only those whose time has come."""

from dataclasses import dataclass
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from nodes.alarms import Alarms


@dataclass(eq=False)
class Sleeper:
    name: str
    due: float = inf  # what it wants
    alarm: float = inf


class Bedroom:
    """Sleepers that write down when they were called, and the clock that `wake` was told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.wake_at = inf
        self.told = 0
        self.called: list[tuple[float, str]] = []
        self.alarms: Alarms[Sleeper] = Alarms(self.wake)

    def wake(self, when: float) -> None:
        self.wake_at = when
        self.told += 1

    def want(self, sleeper: Sleeper, due: float) -> None:
        sleeper.due = due
        self.alarms.set(sleeper, due)

    def until(self, end: float) -> None:
        while self.wake_at <= end:
            self.now, self.wake_at = self.wake_at, inf
            self.alarms.ring(self.now, self.call)

    def call(self, sleeper: Sleeper) -> None:
        if sleeper.due <= self.now:
            self.called.append((self.now, sleeper.name))
            sleeper.due = inf
        self.alarms.set(sleeper, sleeper.due)


def test_each_is_called_at_its_time() -> None:
    room = Bedroom()
    for name, due in (("b", 2.0), ("a", 1.0), ("c", 2.0)):
        room.want(Sleeper(name), due)
    room.until(9)
    assert room.called == [(1.0, "a"), (2.0, "b"), (2.0, "c")]


def test_who_wants_to_be_called_earlier_is_and_not_again() -> None:
    room = Bedroom()
    one = Sleeper("a")
    room.want(one, 5.0)
    room.want(one, 1.0)
    room.until(9)
    assert room.called == [(1.0, "a")]


def test_who_puts_it_off_is_called_then() -> None:
    room = Bedroom()
    one = Sleeper("a")
    room.want(one, 1.0)
    room.want(one, 5.0)
    room.until(9)
    assert room.called == [(5.0, "a")]


def test_who_is_always_due_does_not_keep_the_others_from_being_called() -> None:
    room = Bedroom()
    one, other = Sleeper("a"), Sleeper("b")
    room.want(one, 1.0)
    room.want(other, 1.0)
    asked: list[str] = []

    def call(sleeper: Sleeper) -> None:
        asked.append(sleeper.name)
        room.alarms.set(sleeper, 1.0)

    room.alarms.ring(1.0, call)
    assert asked == ["a", "b"]
    assert room.wake_at == 1.0


def test_thousands_that_are_put_off_again_and_again_leave_little_behind() -> None:
    room = Bedroom()
    sleepers = [Sleeper(str(number)) for number in range(1000)]
    for turn in range(50):
        for sleeper in sleepers:
            room.want(sleeper, turn + 1.5)
        room.until(turn + 1)
    assert len(room.alarms) == len(sleepers)
    assert room.told < 100


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from([0.0, 0.5, 1.0, 3.0, inf]),
            st.sampled_from([0, 1, 2]),
        )
    )
)
def test_nobody_is_called_late_or_without_a_reason(steps: list[tuple[int, float, int]]) -> None:
    room = Bedroom()
    sleepers = [Sleeper(str(number)) for number in range(4)]
    now, wanted = 0.0, dict[str, float]()
    for which, delay, passed in steps:
        room.want(sleepers[which], now + delay)
        wanted[sleepers[which].name] = now + delay
        now += passed
        room.until(now)
        for when, name in room.called:
            assert wanted.pop(name) == when
        room.called.clear()
        assert all(due > now for due in wanted.values())
