from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from apps.egress.hostnames import address_of
from apps.socks.dnscache import LONGEST, LONGEST_NEGATIVE, Cache, Outcome

HERE = Outcome((address_of("192.0.2.1"),))
NOWHERE = Outcome((), "no such name")


def test_an_outcome_is_kept_as_long_as_it_says():
    cache = Cache()
    cache.put("a.test", "A", HERE, 60, 100)
    assert cache.get("a.test", "A", 159.9) == HERE
    assert cache.get("a.test", "A", 160) is None
    assert cache.get("a.test", "A", 100) is None  # gone for good


def test_families_are_apart():
    cache = Cache()
    cache.put("a.test", "A", HERE, 60, 0)
    assert cache.get("a.test", "AAAA", 1) is None


def test_a_life_of_nothing_is_not_kept_and_takes_what_was_there():
    cache = Cache()
    cache.put("a.test", "A", HERE, 60, 0)
    cache.put("a.test", "A", HERE, 0, 0)
    assert cache.get("a.test", "A", 1) is None


def test_lives_have_their_limits():
    cache = Cache()
    cache.put("a.test", "A", HERE, 10**9, 0)
    cache.put("b.test", "A", NOWHERE, 10**9, 0)
    assert cache.get("a.test", "A", LONGEST - 1) == HERE
    assert cache.get("b.test", "A", LONGEST_NEGATIVE - 1) == NOWHERE
    assert cache.get("b.test", "A", LONGEST_NEGATIVE) is None
    assert cache.get("a.test", "A", LONGEST) is None


def test_who_was_used_last_stays_when_it_is_full():
    cache = Cache(size=2)
    cache.put("a.test", "A", HERE, 60, 0)
    cache.put("b.test", "A", HERE, 60, 0)
    cache.get("a.test", "A", 1)
    cache.put("c.test", "A", HERE, 60, 1)
    assert cache.get("a.test", "A", 2) == HERE
    assert cache.get("b.test", "A", 2) is None


class Model(RuleBasedStateMachine):
    """Against a dictionary that never forgets: what is found is what was put last and is not over."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache(size=4)
        self.truth: dict[str, tuple[Outcome, float]] = {}
        self.now = 0.0

    @rule(name=st.sampled_from("abcdef"), ttl=st.integers(0, 20), found=st.booleans())
    def put(self, name: str, ttl: int, found: bool) -> None:
        outcome = HERE if found else NOWHERE
        self.cache.put(name, "A", outcome, ttl, self.now)
        self.truth[name] = (outcome, self.now + ttl)

    @rule(name=st.sampled_from("abcdef"))
    def get(self, name: str) -> None:
        found = self.cache.get(name, "A", self.now)
        if found is not None:
            outcome, until = self.truth[name]
            assert found == outcome
            assert until > self.now

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def bounded(self) -> None:
        assert len(self.cache) <= 4


TestModel = Model.TestCase
