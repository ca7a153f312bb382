"""Which way a pair uses, and which one stands by."""

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from nodes.api import LinkState, Policy, Registration
from nodes.manager.choosing import DEARER, Conditions, choose, cost_of, links
from nodes.manager.paths import disjoint_pair, price
from nodes.manager.topology import Topology
from tests.support.topology import network

ANY = Conditions(Policy())


def chosen(topology: Topology, conditions: Conditions = ANY) -> tuple[str, str | None]:
    found = choose(topology.graph, "a", "d", conditions)
    assert found is not None
    return "".join(found.active), "".join(found.standby) if found.standby else None


def test_the_standby_avoids_links_and_nodes_of_the_active_way() -> None:
    square = network("ab", "bd", "ac", "cd", delays={"ab": 0.001, "bd": 0.001})
    assert chosen(square) == ("abd", "acd")


def test_a_standby_shares_only_what_it_must() -> None:
    # Whatever goes to d goes over x: then at least the rest differs.
    mesh = network("ab", "bx", "ac", "cx", "xd", delays={"ab": 0.001})
    assert chosen(mesh) == ("abxd", "acxd")


def test_the_only_way_has_no_standby() -> None:
    assert chosen(network("ab", "bd")) == ("abd", None)


def test_a_way_that_blocks_every_second_one_is_left_for_two_that_do_not() -> None:
    # The fastest, a-b-c-d, uses a link of both a-b-e-d and a-f-c-d.
    trap = network("ab", "bc", "cd", "be", "ed", "af", "fc", delays={"bc": 0.001})
    active, standby = chosen(trap)
    assert {active, standby} == {"abed", "afcd"}


def test_but_not_for_two_that_are_much_dearer() -> None:
    slow = dict.fromkeys(("be", "ed", "af", "fc"), 0.5)
    active, standby = chosen(network("ab", "bc", "cd", *slow, delays=slow))
    assert active == "abcd"
    assert standby is not None


def test_each_metric_has_its_own_way() -> None:
    topology = network()
    speed = {
        "ad": (0.4, 1e6),
        "ab": (0.01, 1e6),
        "bd": (0.01, 1e6),
        "ac": (0.1, 1e9),
        "cd": (0.1, 1e9),
    }
    for key in "abcd":
        states = [
            LinkState(link.replace(key, ""), rtt=rtt, rate=rate)
            for link, (rtt, rate) in speed.items()
            if key in link
        ]
        topology.register(key, Registration(key, "", bytes(16), 0, 0, states), 0.0)
    ways = {
        metric: chosen(topology, Conditions(Policy(metric)))[0]
        for metric in ("fastest", "shortest", "widest")
    }
    assert ways == {"fastest": "abd", "shortest": "ad", "widest": "acd"}


def test_conditions_are_kept_by_both_ways() -> None:
    mesh = network("ad", "ab", "bd", "ac", "cd", "ae", "ed")
    active, standby = chosen(mesh, Conditions(Policy(min_hops=2), avoid=frozenset("b")))
    assert {active, standby} == {"acd", "aed"}
    assert chosen(mesh, Conditions(Policy(), must=frozenset("c")))[0] == "acd"
    assert choose(mesh.graph, "a", "d", Conditions(Policy(), must=frozenset(["gone"]))) is None


def test_a_link_under_suspicion_is_used_when_there_is_no_other() -> None:
    conditions = Conditions(Policy(), suspects=frozenset([("a", "b")]))
    assert chosen(network("ab", "bd", "ac", "cd", delays={"ab": 0.001}), conditions)[0] == "acd"
    assert chosen(network("ab", "bd"), conditions)[0] == "abd"


PAIRS = [a + b for a, b in combinations("abcdefg", 2)]


@st.composite
def meshes(draw: st.DrawFn) -> Topology:
    found = draw(st.dictionaries(st.sampled_from(PAIRS), st.integers(1, 99), min_size=6))
    return network("ab", "bd", *found, delays={k: v / 1000 for k, v in found.items()})


@given(meshes(), st.sampled_from(["fastest", "shortest", "widest"]))
def test_the_standby_is_free_of_the_active_links_wherever_that_is_possible(
    topology: Topology, metric: str
) -> None:
    graph, conditions = topology.graph, Conditions(Policy(metric))  # type: ignore[arg-type]
    found = choose(graph, "a", "d", conditions)
    assert found is not None
    for path in (found.active, found.standby or found.active):
        assert len(set(path)) == len(path)
        assert (path[0], path[-1]) == ("a", "d")
        assert all(b in graph[a] for a, b in pairwise(path))
    shared = links(found.active) & links(found.standby) if found.standby else links(found.active)
    assert found.shared == len(shared)
    if shared:
        cost = cost_of(conditions)
        pair = disjoint_pair(graph, "a", "d", cost)
        assert pair is None or price(graph, pair[0], cost) > DEARER * price(
            graph, found.active, cost
        )


@given(
    meshes(),
    st.integers(1, 4),
    st.integers(3, 6),
    st.sets(st.sampled_from("bcefg"), max_size=2),
    st.sets(st.sampled_from("bcefg"), max_size=2),
)
def test_no_way_breaks_the_policy(
    topology: Topology, low: int, high: int, must: set[str], avoid: set[str]
) -> None:
    policy = Policy(min_hops=low, max_hops=high)
    found = choose(topology.graph, "a", "d", Conditions(policy, frozenset(must), frozenset(avoid)))
    for path in [] if found is None else [found.active, found.standby or found.active]:
        assert low <= len(path) - 1 <= high
        assert must <= set(path)
        assert not avoid & set(path)
