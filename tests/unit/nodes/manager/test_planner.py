"""What stands for each pair of nodes, through losses, repairs and managers that come and go."""

import pytest

from nodes.api import Policy, StandingRoute
from nodes.manager import planner as planning
from nodes.manager import roster
from nodes.manager.pairs import UNUSED_FOR, Drop, Switch, TooManyRoutes
from nodes.manager.planner import DRAIN, EVALUATE_EVERY, LINGER, STEADY
from nodes.manager.topology import FORGET_AFTER, Change
from tests.support.planned import Ordered, links
from tests.support.topology import network, relink

SQUARE = ("ab", "bd", "ac", "cd")
FAST_OVER_B = {"ab": 0.001, "bd": 0.001}
LONG_ENOUGH = int(STEADY * EVALUATE_EVERY) + 2  # s for hysteresis


def square() -> Ordered:
    return Ordered(network(*SQUARE, delays=FAST_OVER_B))


def test_a_pair_gets_an_active_route_and_a_standby_beforehand() -> None:
    mesh = square()
    mesh.wanted("ad")
    assert (mesh.active("ad"), mesh.standby("ad")) == ("abd", "acd")
    assert mesh.told == [(("a", "d"), "ready")]
    assert mesh.sends_on("a", "d") == mesh.sends_on("d", "a") == "abd"
    assert len(mesh.standing) == 2


def test_both_ends_may_ask_and_share_the_routes() -> None:
    mesh = square()
    mesh.slow = True
    mesh.wanted("ad")
    mesh.wanted("da")
    assert len(mesh.under_way) == 1
    mesh.finish()
    assert len(mesh.planner.pairs) == 1


def test_when_a_link_is_lost_the_standby_takes_over_and_another_is_built() -> None:
    mesh = Ordered(network(*SQUARE, "ae", "ed", delays=FAST_OVER_B | {"ac": 0.005}))
    mesh.wanted("ad")
    mesh.lose_link("bd")
    assert (mesh.active("ad"), mesh.standby("ad")) == ("acd", "aed")
    assert mesh.sends_on("a", "d") == mesh.sends_on("d", "a") == "acd"
    assert len(mesh.standing) == 2


def test_an_end_that_missed_the_order_to_switch_is_told_again() -> None:
    mesh = Ordered(network(*SQUARE, "ae", "ed", delays=FAST_OVER_B | {"ac": 0.005}))
    mesh.wanted("ad")
    mesh.silent.add("d")
    mesh.carry_out(mesh.planner.lost("a", mesh.used["a", "d"], "b", "no sign of life", mesh.now))
    mesh.used["d", "a"] = "nothing"
    mesh.later(30)
    mesh.silent.clear()
    mesh.later(60)
    assert mesh.sends_on("a", "d") == mesh.sends_on("d", "a") == mesh.active("ad")


def test_a_lost_standby_is_replaced() -> None:
    mesh = Ordered(network(*SQUARE, "ae", "ed", delays=FAST_OVER_B | {"ac": 0.005}))
    mesh.wanted("ad")
    mesh.lose_link("ac")
    assert (mesh.active("ad"), mesh.standby("ad")) == ("abd", "aed")


def test_an_end_that_loses_a_route_gets_another_that_avoids_the_place() -> None:
    mesh = Ordered(network(*SQUARE, "ae", "ed", delays=FAST_OVER_B | {"ae": 0.02}))
    mesh.wanted("ad")
    route = mesh.used["a", "d"]
    mesh.carry_out(mesh.planner.lost("a", route, "b", "no sign of life", mesh.now))
    assert mesh.active("ad") == "acd"
    assert mesh.standby("ad") == "aed"  # though the link b - d says it is up, and is faster
    mesh.later(int(planning.EVALUATE_EVERY) + 60)
    assert mesh.active("ad") == "abd"  # it is trusted again, and better


def test_only_an_end_of_a_route_can_say_that_it_is_lost() -> None:
    mesh = square()
    mesh.wanted("ad")
    route = mesh.used["a", "d"]
    assert mesh.planner.lost("b", route, "", "a lie", mesh.now) == []
    assert mesh.planner.unused("b", route, mesh.now) == []
    assert mesh.planner.lost("a", "ffff", "", "no such route", mesh.now) == []


def test_a_better_way_is_taken_when_it_has_been_better_three_times() -> None:
    mesh = square()
    mesh.wanted("ad")
    better = FAST_OVER_B | {"ac": 0.0001, "cd": 0.0001}
    relink(mesh.topology, *SQUARE, delays=better | {"ab": 0.02}, now=mesh.now)
    mesh.later(int(EVALUATE_EVERY) * (STEADY - 1))
    assert mesh.active("ad") == "abd"
    mesh.later(LONG_ENOUGH)
    assert mesh.active("ad") == "acd"
    assert mesh.sends_on("a", "d") == "acd"
    assert mesh.standby("ad") == "abd"


def test_a_little_better_is_not_better() -> None:
    mesh = square()
    mesh.wanted("ad")
    relink(mesh.topology, *SQUARE, delays=FAST_OVER_B | {"ac": 0.0009, "cd": 0.0008}, now=mesh.now)
    mesh.later(60)
    assert mesh.active("ad") == "abd"


def test_what_is_better_now_and_then_is_not_better() -> None:
    mesh = square()
    mesh.wanted("ad")
    for turn in range(20):
        slow = {"ab": 0.1} if turn % 2 else {}
        relink(mesh.topology, *SQUARE, delays=FAST_OVER_B | slow, now=mesh.now)
        mesh.later(int(EVALUATE_EVERY))
    assert mesh.active("ad") == "abd"


def test_the_new_route_stands_before_the_old_one_goes() -> None:
    mesh = Ordered(network(*SQUARE, "ae", "ed", delays=FAST_OVER_B | {"ac": 0.005}))
    mesh.wanted("ad")
    old = mesh.used["a", "d"]
    mesh.slow = True
    links_now = (*SQUARE, "ae", "ed")
    relink(mesh.topology, *links_now, delays={"ae": 0.001, "ed": 0.001, "ab": 0.2}, now=mesh.now)
    mesh.later(LONG_ENOUGH)
    assert mesh.used["a", "d"] == old
    assert old in mesh.standing
    mesh.finish()
    assert mesh.sends_on("a", "d") == mesh.sends_on("d", "a") == "aed"
    assert old in mesh.standing  # frames that are on the way still arrive
    mesh.finish()
    mesh.later(int(DRAIN) + 1)
    mesh.finish()
    assert old not in mesh.standing
    assert mesh.standby("ad") == "acd"


def test_a_flapping_link_does_not_draw_traffic_back() -> None:
    mesh = square()
    mesh.wanted("ad")
    for _ in range(10):
        mesh.lose_link("bd")
        mesh.later(1)
        mesh.gain_link("bd")
        relink(mesh.topology, *SQUARE, delays=FAST_OVER_B, now=mesh.now)
        mesh.later(LONG_ENOUGH)
    assert mesh.active("ad") == "acd"
    assert mesh.standby("ad") == "abd"


def test_a_pair_without_a_way_is_told_and_served_when_a_link_comes() -> None:
    mesh = Ordered(network("ab", "cd"))
    mesh.wanted("ad")
    assert mesh.told == [(("a", "d"), "there is no path of links between them")]
    mesh.gain_link("bc")
    mesh.later(3)
    assert mesh.active("ad") == "abcd"


def test_a_node_that_does_not_take_its_part_is_avoided() -> None:
    mesh = square()
    mesh.silent = {"b"}
    mesh.wanted("ad")
    assert mesh.told[-1] == (("a", "d"), "silent")
    mesh.later(3)
    assert mesh.active("ad") == "acd"


def test_builds_that_fail_are_tried_again_ever_more_rarely() -> None:
    mesh = Ordered(network("ab", "bd"))
    mesh.silent = {"b"}
    mesh.wanted("ad")
    mesh.later(300)
    assert 5 < len(mesh.told) < 20


def test_a_node_that_is_silent_on_the_bus_keeps_its_routes() -> None:
    mesh = square()
    mesh.wanted("ad")
    relink(mesh.topology, *SQUARE, delays=FAST_OVER_B, now=mesh.now)
    mesh.topology.nodes["b"].seen = 0.0
    mesh.now += 1
    changes = mesh.topology.expire(mesh.now)
    assert Change("b", None, up=False, silent=True) in changes
    mesh.carry_out(mesh.planner.changed(changes, mesh.now))
    mesh.later(int(FORGET_AFTER) * 2)
    assert mesh.active("ad") == "abd"


def test_a_policy_moves_a_standing_pair_at_once() -> None:
    mesh = square()
    mesh.wanted("ad")
    mesh.policy("ad", Policy(avoid=["b"]))
    assert mesh.active("ad") == "acd"
    mesh.wanted("ad")  # who has no wish leaves it
    assert mesh.active("ad") == "acd"
    mesh.policy("ad", Policy())
    assert mesh.active("ad") == "abd"


def test_who_gives_a_policy_hears_of_it_when_the_route_is_as_it_says() -> None:
    mesh = square()
    mesh.wanted("ad")
    mesh.told.clear()
    mesh.slow = True
    mesh.policy("ad", Policy(avoid=["b"]))
    assert not mesh.told
    mesh.finish()
    assert [what for _, what in mesh.told] == ["ready"]
    assert mesh.active("ad") == "acd"
    mesh.told.clear()
    mesh.slow = False
    mesh.policy("ad", Policy(avoid=["b", "c"]))
    assert [what for _, what in mesh.told] == [
        "there is no path of links between them that the policy allows"
    ]


def test_a_policy_that_nothing_meets_says_so() -> None:
    mesh = square()
    mesh.policy("ad", Policy(min_hops=5))
    assert mesh.told[-1][1] == "there is no path of links between them that the policy allows"


def test_a_route_by_hand_stays_until_it_is_freed() -> None:
    mesh = square()
    mesh.wanted("ad")
    mesh.by_hand("dca")
    assert mesh.active("ad") == "acd"
    assert mesh.standby("ad") == "abd"
    mesh.later(60)
    assert mesh.active("ad") == "acd"
    mesh.free("ad")
    assert mesh.active("ad") == "abd"


def test_a_route_by_hand_may_be_the_first() -> None:
    mesh = square()
    mesh.by_hand("acd")
    assert mesh.active("ad") == "acd"


def test_while_the_route_by_hand_is_broken_the_standby_serves() -> None:
    mesh = square()
    mesh.by_hand("acd")
    mesh.lose_link("cd")
    assert mesh.active("ad") == "abd"
    mesh.gain_link("cd")
    mesh.later(40)
    assert mesh.active("ad") == "acd"


def test_a_new_manager_adopts_what_both_ends_report() -> None:
    mesh = square()
    mesh.wanted("ad")
    before = dict(mesh.standing)
    mesh.start_manager()
    mesh.report_standing("a")
    assert mesh.planner.pairs == {}
    mesh.report_standing("d")
    assert (mesh.active("ad"), mesh.standby("ad")) == ("abd", "acd")
    mesh.later(60)
    assert mesh.standing == before  # nothing was built or taken away


def test_what_only_one_end_reports_is_taken_from_it() -> None:
    mesh = square()
    mesh.standing["00" * 8] = ("a", "b", "d")
    mesh.report_standing("a")
    mesh.later(int(FORGET_AFTER) * 2)
    assert mesh.standing == {}
    assert mesh.planner.pairs == {}


def test_routes_that_a_node_has_no_part_in_are_its_own_affair() -> None:
    mesh = square()
    for path in (["b", "d"], ["a", "b", "a", "d"]):
        said = StandingRoute("00" * 8, path, True)
        assert mesh.planner.standing("a", [said], mesh.now) == []
    mesh.later(60)
    assert not mesh.planner.differs("a", 0, 0)


def test_a_route_that_an_end_has_no_more_is_built_again() -> None:
    mesh = square()
    mesh.wanted("ad")
    gone = mesh.used["a", "d"]
    mesh.later(int(EVALUATE_EVERY) + 1)
    assert not mesh.planner.differs("a", 2, 1 ^ 2)
    assert mesh.planner.differs("a", 1, 2)
    del mesh.standing[gone]
    mesh.report_standing("a")
    assert mesh.active("ad") == "acd"
    assert mesh.standby("ad") == "abd"
    assert gone not in mesh.standing


def test_a_node_that_was_started_again_has_no_routes() -> None:
    mesh = square()
    mesh.wanted("ad")
    mesh.carry_out(mesh.planner.restarted("d"))
    assert mesh.standing == {}
    assert mesh.planner.pairs == {}
    mesh.wanted("ad")
    assert mesh.active("ad") == "abd"


def test_what_both_ends_have_no_more_use_for_is_taken_away() -> None:
    mesh = square()
    mesh.wanted("ad")
    route = mesh.used["a", "d"]
    mesh.carry_out(mesh.planner.unused("d", route, mesh.now))
    mesh.later(int(UNUSED_FOR) + 1)
    mesh.carry_out(mesh.planner.unused("a", route, mesh.now))
    assert mesh.active("ad") == "abd"  # d has used it since
    mesh.carry_out(mesh.planner.unused("d", route, mesh.now))
    assert mesh.standing == {}
    assert [event.up for event in mesh.events] == [True, True, False, False]


def test_what_was_built_for_nobody_any_more_is_dropped() -> None:
    mesh = square()
    mesh.slow = True
    mesh.wanted("ad")
    order = mesh.under_way.popleft()
    mesh.planner.pairs.clear()
    assert mesh.planner.built(order.ends, order.route, order.path, mesh.now) == [
        Drop(order.route, order.path)
    ]


def test_a_pair_whose_ends_are_both_gone_is_forgotten() -> None:
    mesh = square()
    mesh.wanted("ad")
    for key in "ad":
        mesh.topology.nodes[key].seen = -1000.0
    changes = mesh.topology.expire(mesh.now)
    mesh.carry_out(mesh.planner.changed(changes, mesh.now))
    mesh.later(int(LINGER) - 5)
    assert mesh.planner.pairs
    mesh.later(20)
    assert not mesh.planner.pairs
    assert mesh.standing == {}


def test_one_node_cannot_ask_for_all_routes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "MAX_PAIRS_OF_ONE", 2)
    mesh = square()
    mesh.wanted("ab")
    mesh.wanted("ac")
    mesh.wanted("ab")
    with pytest.raises(TooManyRoutes):
        mesh.wanted("ad")
    mesh.wanted("da")  # others may
    for end in "ab":
        mesh.carry_out(mesh.planner.unused(end, mesh.used["a", "b"], mesh.now))
    mesh.wanted("ad")


def test_a_standby_that_came_to_share_links_is_replaced() -> None:
    mesh = Ordered(network("ab", "bd", "bc", "cd"))
    mesh.wanted("ad")
    assert links(mesh.standby("ad")) & links(mesh.active("ad")) == {("a", "b")}
    relink(mesh.topology, "ab", "bd", "bc", "cd", "ac", now=mesh.now)
    mesh.later(LONG_ENOUGH + 5)
    assert not links(mesh.standby("ad")) & links(mesh.active("ad"))


def test_the_ends_are_told_even_if_they_have_switched_by_themselves() -> None:
    mesh = square()
    mesh.wanted("ad")
    changes = mesh.topology.link("a", "b", up=False, now=mesh.now)
    actions = mesh.planner.changed(changes, mesh.now)
    assert any(isinstance(action, Switch) for action in actions)
