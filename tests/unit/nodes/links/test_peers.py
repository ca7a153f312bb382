"""Whom a node dials and lets in: by choice, by suggestion, and never all at once."""

from hypothesis import given
from hypothesis import strategies as st

from nodes.links.peers import (
    ATTEMPTS,
    FORGIVEN,
    LAST_PAUSE,
    MAX_EXPECTED,
    MAX_SUGGESTED,
    Dial,
    Peers,
)

OWN, A, B, C = ("0" * 39 + digit for digit in "0123")
AT = "tcp://10.0.0.1:5000"


def peers(automatic: int = 0, allowed: set[str] | None = None, jitter: float = 0.5) -> Peers:
    return Peers(OWN, lambda: jitter, automatic, frozenset(allowed) if allowed else None)


def targets(dials: list[Dial]) -> list[str]:
    return [dial.target for dial in dials]


def test_a_named_peer_is_dialled_at_once_and_once_at_a_time() -> None:
    node = peers()
    node.add("beta", 0)
    assert node.due(0) == [Dial("beta", None, None)]
    assert node.due(9) == []
    assert node.next_time() is None


def test_a_named_peer_is_dialled_for_ever_in_growing_pauses() -> None:
    node = peers()
    node.add("beta", 0)
    now, pauses = 0.0, []
    for _ in range(20):
        assert targets(node.due(now)) == ["beta"]
        node.failed("beta", "no answer", now)
        pauses.append(round((node.next_time() or 0) - now, 6))
        now = node.next_time() or 0
    assert pauses == sorted(pauses)
    assert pauses[0] == 0.1
    assert pauses[-1] == LAST_PAUSE


@given(st.floats(0, 1), st.integers(0, 10))
def test_pauses_are_jittered_within_half_and_one_and_a_half(jitter: float, failures: int) -> None:
    node, plain = peers(jitter=jitter), peers()
    for one in (node, plain):
        one.add(A, 0)
        for _ in range(failures + 1):
            one.failed(A, "no", 0)
    pause, usual = node.next_time(), plain.next_time()
    assert pause is not None
    assert usual is not None
    assert 0.5 * usual <= pause * 1.000001
    assert pause <= 1.500001 * usual


def test_a_problem_is_news_when_it_begins_and_when_it_changes() -> None:
    node = peers()
    node.add("beta", 0)
    told = [node.failed("beta", text, 0) for text in ("no", "no", "other", "no")]
    assert told == [True, False, True, True]


def test_a_lost_peer_is_dialled_again_where_it_was() -> None:
    node = peers()
    node.add("beta", 0)
    node.due(0)
    assert node.found("beta", A, AT, 0)
    node.link_up(A, 1)
    assert node.due(50) == []
    node.link_down(A, 60)
    assert node.due(60) == []
    assert node.due(61) == [Dial("beta", A, AT)]


def test_a_link_that_flaps_is_dialled_less_and_less_often() -> None:
    node = peers()
    node.add(A, 0)
    now, pauses = 0.0, []
    for _ in range(8):
        assert node.due(now)
        node.link_up(A, now)
        node.link_down(A, now + 0.01)
        pauses.append((node.next_time() or 0) - now)
        now = node.next_time() or 0
    assert pauses[-1] > 2
    node.due(now)
    node.link_up(A, now)
    node.link_down(A, now + 10)
    assert (node.next_time() or 0) - now - 10 < 0.2


def test_a_peer_that_dialled_us_need_not_be_dialled() -> None:
    node = peers()
    node.add(A, 0)
    node.link_up(A, 0)
    assert node.due(1) == []


def test_a_name_that_turns_out_to_be_a_neighbour_already_is_not_dialled() -> None:
    node = peers()
    node.add("beta", 0)
    node.due(0)
    node.link_up(A, 0)
    assert not node.found("beta", A, AT, 0)
    node.link_down(A, 10)
    assert node.due(11) == [Dial("beta", A, AT)]


def test_automatic_peers_are_as_many_as_the_user_allows() -> None:
    node = peers()
    node.suggest([(A, AT), (B, AT)], 0)
    assert node.due(0) == []
    node = peers(automatic=1)
    node.suggest([(OWN, AT), (A, ""), (B, AT), (C, AT)], 0)
    assert node.due(0) == [Dial(B, B, AT)]


def test_an_automatic_peer_that_cannot_be_reached_makes_room_for_another() -> None:
    node = peers(automatic=1)
    node.suggest([(A, AT), (B, AT)], 0)
    now = 0.0
    for _ in range(ATTEMPTS):
        assert targets(node.due(now)) == [A]
        node.failed(A, "no", now)
        now += 10
    assert targets(node.due(now)) == [B]
    node.remove(B, now)
    assert node.due(now) == []
    assert targets(node.due(now + FORGIVEN)) == [A]


def test_an_automatic_peer_that_the_user_names_stays_for_ever() -> None:
    node = peers(automatic=1)
    node.suggest([(A, AT)], 0)
    node.add(A, 0)
    for _ in range(2 * ATTEMPTS):
        node.failed(A, "no", 0)
    assert targets(node.due(99)) == [A]


def test_only_who_was_announced_is_let_in() -> None:
    node = peers()
    assert not node.admits(A)
    assert node.expect(A)
    assert node.admits(A)
    assert not node.expect(OWN)


def test_with_an_allow_list_nobody_else_becomes_a_neighbour() -> None:
    node = peers(automatic=5, allowed={A})
    assert node.admits(A)
    assert not node.expect(B)
    assert not node.admits(B)
    node.suggest([(B, AT), (A, AT)], 0)
    assert targets(node.due(0)) == [A]
    node.add("beta", 0)
    node.due(0)
    assert not node.found("beta", B, AT, 0)
    assert "allow-list" in next(p.problem for p in node.shown() if p.target == "beta")
    node.add(C, 0)
    assert node.found(C, C, AT, 0)


def test_what_the_manager_says_is_bounded() -> None:
    node = peers(automatic=10_000)
    node.suggest(((f"{number:040}", AT) for number in range(1, 10_000)), 0)
    assert len(node.due(0)) == MAX_SUGGESTED
    for number in range(1, MAX_EXPECTED + 10):
        node.expect(f"{number:040}")
    assert not node.admits(f"{1:040}")
    assert node.admits(f"{MAX_EXPECTED + 9:040}")
