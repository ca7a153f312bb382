from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from apps.egress.dnscache import LONGEST, LONGEST_NEGATIVE, Cache, life


def value(cache: Cache[str, str], key: str, now: float) -> str | None:
    kept = cache.get(key, now)
    return kept.value if kept else None


def test_an_answer_is_kept_as_long_as_it_says_and_its_age_is_known():
    cache: Cache[str, str] = Cache()
    cache.put("a", "here", 60, 100)
    assert cache.get("a", 159.5) == ("here", 59.5)
    assert cache.get("a", 160) is None
    assert cache.get("a", 100) is None  # gone for good
    assert (cache.hits, cache.misses, len(cache)) == (1, 2, 0)


def test_a_life_of_nothing_is_not_kept_and_takes_what_was_there():
    cache: Cache[str, str] = Cache()
    cache.put("a", "here", 60, 0)
    cache.put("a", "here", 0, 0)
    assert cache.get("a", 1) is None


def test_lives_have_their_limits():
    assert life(10**9, positive=True) == LONGEST == 24 * 3600
    assert life(10**9, positive=False) == LONGEST_NEGATIVE == 3 * 3600
    assert life(60, positive=True) == life(60, positive=False) == 60


def test_who_was_used_last_stays_when_it_is_full():
    cache: Cache[str, str] = Cache(size=2)
    cache.put("a", "here", 60, 0)
    cache.put("b", "here", 60, 0)
    cache.get("a", 1)
    cache.put("c", "here", 60, 1)
    assert value(cache, "a", 2) == "here"
    assert value(cache, "b", 2) is None


class Model(RuleBasedStateMachine):
    """Against a dictionary that never forgets: what is found is what was put last and is not over."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: Cache[str, int] = Cache(size=4)
        self.truth: dict[str, tuple[int, float, float]] = {}
        self.now = 0.0

    @rule(name=st.sampled_from("abcdef"), seconds=st.integers(0, 20), found=st.integers())
    def put(self, name: str, seconds: int, found: int) -> None:
        self.cache.put(name, found, seconds, self.now)
        self.truth[name] = (found, self.now, self.now + seconds)

    @rule(name=st.sampled_from("abcdef"))
    def get(self, name: str) -> None:
        kept = self.cache.get(name, self.now)
        if kept is not None:
            found, since, until = self.truth[name]
            assert kept == (found, self.now - since)
            assert until > self.now

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def bounded(self) -> None:
        assert len(self.cache) <= 4


TestModel = Model.TestCase
