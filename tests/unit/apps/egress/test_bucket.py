from hypothesis import given
from hypothesis import strategies as st

from apps.egress.bucket import BURST, LEAST, Bucket


def test_no_rate_is_no_limit():
    bucket = Bucket(0, 0)
    assert all(bucket.take(10**9, 0) for _ in range(10))


def test_a_burst_passes_and_then_the_rate():
    bucket = Bucket(1_000_000, 0)
    assert bucket.take(250_000, 0)
    assert not bucket.take(1, 0)
    assert bucket.take(100_000, 0.1)
    assert not bucket.take(1, 0.1)


def test_a_slow_rate_lets_the_largest_datagram_pass():
    assert Bucket(1000, 0).take(LEAST, 0)


def test_a_clock_that_goes_back_gives_nothing():
    bucket = Bucket(1_000_000, 100)
    assert bucket.take(250_000, 100)
    assert not bucket.take(1, 50)


@given(
    st.integers(1, 10**7),
    st.lists(st.tuples(st.integers(0, 100_000), st.floats(0, 2)), max_size=50),
)
def test_never_more_than_the_rate_and_one_burst(rate: int, steps: list[tuple[int, float]]):
    bucket, now, passed = Bucket(rate, 0), 0.0, 0
    for size, pause in steps:
        now += pause
        if bucket.take(size, now):
            passed += size
    assert passed <= max(rate * BURST, LEAST) + rate * now + 1


def test_what_is_here_already_waits_until_it_may_go():
    bucket = Bucket(1_000_000, 0)
    assert bucket.spend(250_000, 0) == 0
    assert bucket.spend(500_000, 0) == 0.5
    assert bucket.spend(500_000, 0) == 1.0  # behind the other
    assert not bucket.take(1, 1.0)
    assert bucket.take(1, 1.01)
    assert Bucket(0, 0).spend(10**9, 0) == 0
