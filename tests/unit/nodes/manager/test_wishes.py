"""What people want for pairs of nodes: kept whole or not at all, and never lost by what happens to nodes."""

import itertools
from pathlib import Path

import pytest

from bus.identity import from_bytes
from nodes.api import Policy, Wish
from nodes.manager import wishes as wishing
from nodes.manager.keeping import WishFileError, load, save
from nodes.manager.wishes import TooManyWishes, Wishes
from tests.support.planned import Ordered
from tests.support.topology import network

A, B, C = sorted(from_bytes(bytes([number]) * 32) for number in (1, 2, 3))
FILE = '{"version": 1, "wishes": [{WISH}]}'
POLICY = Policy("widest", must=[C])
FAST_OVER_B = {"ab": 0.001, "bd": 0.001}


def square() -> Ordered:
    return Ordered(network("ab", "bd", "ac", "cd", delays=FAST_OVER_B))


def test_what_was_wanted_is_there_again(tmp_path: Path) -> None:
    file = tmp_path / "ways.json"
    assert not len(load(file))
    wishes = Wishes().with_policy((A, B), POLICY).by_hand((A, B), [A, C, B])
    save(file, wishes)
    assert list(load(file)) == [Wish(A, B, POLICY, [A, C, B])]
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_is_as_if_nobody_wanted_anything_is_not_kept() -> None:
    wishes = Wishes().with_policy((A, B), POLICY).by_hand((A, C), [A, B, C])
    assert len(wishes) == 2
    assert list(wishes.with_policy((A, B), Policy()).freed((A, C))) == []


def test_the_policy_holds_again_when_a_route_by_hand_is_given_up() -> None:
    wishes = Wishes().with_policy((A, B), POLICY).by_hand((A, B), [A, B])
    assert wishes.freed((A, B)).of((A, B)) == Wish(A, B, POLICY)
    assert wishes.with_policy((A, B), POLICY).of((A, B)).by_hand is None


def test_pages_hold_all_in_the_order_of_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wishing, "PAGE", 2)
    keys = sorted(from_bytes(bytes([number]) * 32) for number in range(5))
    pairs = list(itertools.combinations(keys, 2))
    wishes = Wishes(Wish(a, b, POLICY) for a, b in reversed(pairs))
    told, more = [], True
    while more:
        page, more = wishes.after((told[-1].a, told[-1].b) if told else ("", ""))
        told += page
    assert [(wish.a, wish.b) for wish in told] == pairs


def test_there_is_a_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wishing, "MAX_WISHES", 1)
    wishes = Wishes().with_policy((A, B), POLICY)
    with pytest.raises(TooManyWishes):
        wishes.with_policy((A, C), POLICY)
    assert len(wishes.with_policy((A, B), Policy("shortest"))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 2, "wishes": []}',
        '{"version": 1, "wishes": [{"a": "x", "b": "y"}]}',
        FILE.replace("WISH", f'"a": "{B}", "b": "{A}"'),
        FILE.replace("WISH", f'"a": "{A}", "b": "{B}", "by_hand": ["{B}", "{A}"]'),
        FILE.replace("WISH", f'"a": "{A}", "b": "{B}", "policy": {{"avoid": ["beta"]}}'),
        "\xff\xfe",
    ],
)
def test_a_damaged_file_is_told_and_left_as_it_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "ways.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(WishFileError, match=r"ways\.json is damaged .*: put a copy back"):
        load(file)
    assert file.read_text(encoding="latin-1") == text


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(WishFileError, match="cannot write"):
        save(tmp_path / "nowhere" / "ways.json", Wishes())


def test_a_policy_is_not_lost_with_an_end_or_when_nobody_uses_the_way_any_more() -> None:
    mesh = square()
    mesh.policy("ad", Policy(avoid=["b"]))
    mesh.carry_out(mesh.planner.restarted("d"))
    assert not mesh.planner.pairs
    mesh.wanted("ad")
    assert mesh.active("ad") == "acd"
    route = mesh.used["a", "d"]
    for end in "ad":
        mesh.carry_out(mesh.planner.unused(end, route, mesh.now))
    assert not mesh.planner.pairs
    mesh.wanted("da")
    assert mesh.active("ad") == "acd"


def test_a_new_manager_adopts_what_stands_and_then_goes_by_what_is_wanted() -> None:
    mesh = square()
    mesh.wanted("ad")
    mesh.start_manager()
    mesh.planner.freed(
        mesh.planner.wishes.with_policy(("a", "d"), Policy(avoid=["b"])), ("a", "d"), 0
    )
    for key in "ad":
        mesh.report_standing(key)
    assert mesh.active("ad") == "abd"
    mesh.later(60)
    assert mesh.active("ad") == "acd"


def test_a_route_by_hand_that_cannot_be_had_leaves_no_pair_without_a_way() -> None:
    mesh = Ordered(network("ab", "bd", "ac", "cd", "ad", delays={"ad": 0.5}))
    mesh.by_hand("abd")
    mesh.lose_link("bd")
    mesh.lose_link("cd")
    assert mesh.active("ad") == "ad"
    mesh.lose_link("ad")
    mesh.gain_link("cd")
    mesh.later(40)
    assert mesh.active("ad") == "acd"  # though it is neither by hand nor a standby
    mesh.gain_link("bd")
    mesh.later(40)
    assert mesh.active("ad") == "abd"


def test_a_node_that_refuses_its_part_in_a_route_by_hand_leaves_the_pair_another_way() -> None:
    mesh = square()
    mesh.silent = {"b"}
    mesh.by_hand("abd")
    assert mesh.told[-1][1] == "silent"
    mesh.later(10)
    assert mesh.active("ad") == "acd"
    mesh.silent.clear()
    mesh.later(60)
    assert mesh.active("ad") == "abd"


def test_freeing_what_nobody_asked_for_lays_nothing() -> None:
    mesh = square()
    mesh.free("ad")
    assert not mesh.planner.pairs
    assert not mesh.standing
