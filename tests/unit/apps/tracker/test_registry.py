"""The registry of the tracker: newest wins, nothing stale, everything bounded."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from apps.tracker import registry
from apps.tracker.registry import STRANGER, NotTaken, Registry
from nodes.offers import Announcement, Place, Statement

NOW = 1_800_000_000.0
APP, OTHER = "app", "other"


def offer(
    name: str = "node", port: int = 1, *, kind: str = "socks", issued: float = NOW, life: int = 30
) -> tuple[Announcement, Statement]:
    statement = Statement(kind, {}, int(issued * 1000), life)
    return Announcement(name, port, b"", bytes(64)), statement


def shown(found: Registry, now: float = NOW, kind: str | None = None) -> list[tuple[str, int]]:
    return [(a.key, a.port) for a, _ in found.find(kind, None, now)[0]]


def test_offers_are_found_by_type_in_the_order_of_their_places() -> None:
    offers = Registry()
    offers.put(*offer("b"), APP, NOW)
    offers.put(*offer("a", 2), APP, NOW)
    offers.put(*offer("a", 1, kind="vpn"), APP, NOW)
    assert shown(offers) == [("a", 1), ("a", 2), ("b", 1)]
    assert shown(offers, kind="socks") == [("a", 2), ("b", 1)]
    assert shown(offers, kind="nothing") == []


def test_what_is_over_is_not_shown_and_then_forgotten() -> None:
    offers = Registry()
    offers.put(*offer(), APP, NOW)
    assert shown(offers, NOW + 29) == [("node", 1)]
    assert shown(offers, NOW + 30) == []
    offers.expire(NOW + 30)
    assert len(offers) == 0


def test_the_newest_of_a_place_wins_and_an_older_one_is_refused() -> None:
    offers = Registry()
    offers.put(*offer(issued=NOW), APP, NOW)
    offers.put(*offer(issued=NOW + 1, kind="vpn"), APP, NOW)
    for issued in (NOW, NOW + 1):
        with pytest.raises(NotTaken, match="newer"):
            offers.put(*offer(issued=issued), APP, NOW)
    assert shown(offers, kind="vpn") == [("node", 1)]


def test_a_long_one_cannot_be_played_again_when_a_shorter_newer_one_is_over() -> None:
    offers = Registry()
    offers.put(*offer(issued=NOW, life=600), APP, NOW)
    offers.put(*offer(issued=NOW + 1, life=10), APP, NOW + 1)
    offers.expire(NOW + 20)
    with pytest.raises(NotTaken, match="newer"):
        offers.put(*offer(issued=NOW, life=600), APP, NOW + 20)
    assert shown(offers, NOW + 20) == []


def test_only_who_announced_it_takes_it_back_and_it_cannot_be_played_again() -> None:
    offers = Registry()
    offers.put(*offer(), APP, NOW)
    offers.withdraw(Place("node", 1), OTHER)
    offers.withdraw(Place("node", 1), STRANGER)
    assert shown(offers) == [("node", 1)]
    offers.withdraw(Place("node", 1), APP)
    assert shown(offers) == []
    with pytest.raises(NotTaken):
        offers.put(*offer(), OTHER, NOW)
    offers.put(*offer(issued=NOW + 1), APP, NOW)
    assert shown(offers) == [("node", 1)]


def test_who_leaves_the_bus_takes_its_offers_along_and_nobody_elses() -> None:
    offers = Registry()
    offers.put(*offer("a"), APP, NOW)
    offers.put(*offer("b"), OTHER, NOW)
    offers.put(*offer("c"), STRANGER, NOW)
    offers.gone(STRANGER)
    offers.gone(APP)
    assert shown(offers) == [("b", 1), ("c", 1)]


def test_pages_go_on_where_the_last_one_ended() -> None:
    offers = Registry()
    for number in range(250):
        offers.put(*offer(f"node{number // 50}", number + 1), APP, NOW)
    got: list[tuple[str, int]] = []
    after, more = None, True
    while more:
        page, more = offers.find(None, after, NOW)
        assert len(page) <= registry.PAGE
        got += [(a.key, a.port) for a, _ in page]
        after = Place(*got[-1])
    assert got == sorted(got)
    assert len(set(got)) == 250


def test_a_node_has_so_many_offers_and_no_more() -> None:
    offers = Registry()
    for port in range(registry.MAX_OF_NODE):
        offers.put(*offer(port=port + 1), APP, NOW)
    with pytest.raises(NotTaken, match="64"):
        offers.put(*offer(port=1000), APP, NOW)
    offers.put(*offer("another"), APP, NOW)


def test_strangers_leave_room_for_those_on_the_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_OF_STRANGERS", 3)
    monkeypatch.setattr(registry, "MAX_OFFERS", 5)
    offers = Registry()
    for number in range(3):
        offers.put(*offer(f"s{number}"), STRANGER, NOW)
    with pytest.raises(NotTaken) as problem:
        offers.put(*offer("s3"), STRANGER, NOW)
    assert problem.value.name == "full"
    for number in range(2):
        offers.put(*offer(f"m{number}", issued=NOW + 20), APP, NOW)
    with pytest.raises(NotTaken):
        offers.put(*offer("m2", issued=NOW + 20), APP, NOW)
    offers.put(*offer("m2", issued=NOW + 20), APP, NOW + 31)  # the strangers' are over by now


class Churn(RuleBasedStateMachine):
    """Shown is, of each place, the newest that was ever taken, if it is neither over nor taken back."""

    def __init__(self) -> None:
        super().__init__()
        self.offers = Registry()
        self.now = NOW
        self.newest: dict[tuple[str, int], tuple[float, float, str] | None] = {}
        self.highest: dict[tuple[str, int], float] = {}
        self.playable: dict[tuple[str, int], float] = {}  # until when something said there is valid

    @rule(
        place=st.tuples(st.sampled_from("ab"), st.integers(1, 2)),
        ago=st.integers(0, 40),
        life=st.integers(1, 60),
        by=st.sampled_from([APP, OTHER, STRANGER]),
    )
    def announce(self, place: tuple[str, int], ago: int, life: int, by: str) -> None:
        issued = self.now - ago
        if issued + life <= self.now:
            return  # `verified` refuses it before
        taken = issued > self.highest.get(place, 0)
        try:
            self.offers.put(*offer(*place, issued=issued, life=life), by, self.now)
        except NotTaken:
            assert not taken
        else:
            assert taken
            self.newest[place] = issued, issued + life, by
            self.highest[place] = issued
            self.playable[place] = max(issued + life, self.playable.get(place, 0))

    @rule(
        place=st.tuples(st.sampled_from("ab"), st.integers(1, 2)), by=st.sampled_from([APP, OTHER])
    )
    def withdraw(self, place: tuple[str, int], by: str) -> None:
        self.offers.withdraw(Place(*place), by)
        newest = self.newest.get(place)
        if newest and newest[2] == by:
            self.newest[place] = None

    @rule(by=st.sampled_from([APP, OTHER]))
    def leave(self, by: str) -> None:
        self.offers.gone(by)
        self.newest = {p: None if n and n[2] == by else n for p, n in self.newest.items()}

    @rule(seconds=st.integers(1, 30), swept=st.booleans())
    def wait(self, seconds: int, swept: bool) -> None:
        self.now += seconds
        if swept:  # then what is older than the newest may come first, if it never came before
            self.offers.expire(self.now)
            for place in [p for p, until in self.playable.items() if until <= self.now]:
                del self.highest[place], self.playable[place]

    @invariant()
    def shown_is_what_is_true(self) -> None:
        true = sorted(p for p, newest in self.newest.items() if newest and newest[1] > self.now)
        assert shown(self.offers, self.now) == true


TestChurn = Churn.TestCase
TestChurn.settings = settings(max_examples=60, stateful_step_count=30)


def test_what_is_at_a_node_that_has_left_the_bus_is_not_shown_until_it_is_announced_again() -> None:
    offers = Registry()
    offers.put(*offer("node", 1), APP, NOW)
    offers.put(*offer("node", 2), STRANGER, NOW)
    offers.put(*offer("another", 1), STRANGER, NOW)
    offers.gone("node")
    assert shown(offers) == [("another", 1)]
    offers.put(*offer("node", 1, issued=NOW + 1), APP, NOW + 1)
    assert shown(offers) == [("another", 1), ("node", 1)]


def test_a_place_that_offers_something_else_now_is_found_by_that_only() -> None:
    offers = Registry()
    offers.put(*offer("node", 1), APP, NOW)
    offers.put(*offer("node", 1, kind="vpn", issued=NOW + 1), APP, NOW + 1)
    assert (shown(offers, kind="socks"), shown(offers, kind="vpn")) == ([], [("node", 1)])
    offers.expire(NOW + 100)
    assert (shown(offers), shown(offers, kind="vpn"), len(offers)) == ([], [], 0)
