"""Ways through small meshes, against looking at every way there is."""

from collections.abc import Iterator
from itertools import combinations, pairwise
from math import inf

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nodes.manager.metrics import METRICS
from nodes.manager.paths import cheapest, constrained, disjoint_pair, price
from nodes.manager.topology import Edge, Graph, link_of
from tests.support.topology import network

NODES = "abcdefg"


def delay(_here: str, _other: str, edge: Edge) -> float:
    return edge.delay


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph: Graph = {key: {} for key in NODES}
    for a, b in draw(st.sets(st.sampled_from(list(combinations(NODES, 2))), min_size=4)):
        edge = Edge((a, b), delay=draw(st.integers(1, 50)) / 100)
        graph[a][b] = graph[b][a] = edge
    return graph


def all_paths(
    graph: Graph, start: str, goal: str, so_far: tuple[str, ...] = ()
) -> Iterator[list[str]]:
    """Every way without a loop."""
    path = (*so_far, start)
    if start == goal:
        yield list(path)
        return
    for other in graph[start]:
        if other not in path:
            yield from all_paths(graph, other, goal, path)


def links(path: list[str]) -> set[tuple[str, str]]:
    return {link_of(a, b) for a, b in pairwise(path)}


@given(graphs())
def test_the_cheapest_way_is_found_and_has_no_loop(graph: Graph) -> None:
    found = cheapest(graph, "a", "g", delay)
    every = list(all_paths(graph, "a", "g"))
    if found is None:
        assert not every
        return
    assert len(set(found)) == len(found)
    assert (found[0], found[-1]) == ("a", "g")
    assert price(graph, found, delay) == pytest.approx(min(price(graph, p, delay) for p in every))


@given(
    graphs(), st.integers(1, 6), st.integers(1, 6), st.sets(st.sampled_from("bcdef"), max_size=3)
)
def test_a_way_under_conditions_is_found_if_there_is_one(
    graph: Graph, low: int, high: int, must: set[str]
) -> None:
    found = constrained(graph, "a", "g", delay, min_hops=low, max_hops=high, must=must)
    every = [
        path
        for path in all_paths(graph, "a", "g")
        if low <= len(path) - 1 <= high and must <= set(path)
    ]
    assert (found is None) == (not every)
    if found is not None:
        assert found in every


@given(graphs(), st.integers(1, 6))
def test_the_cheapest_way_of_so_few_hops_is_found(graph: Graph, high: int) -> None:
    found = constrained(graph, "a", "g", delay, max_hops=high)
    fitting = [path for path in all_paths(graph, "a", "g") if len(path) - 1 <= high]
    assume(fitting)
    assert found is not None
    assert price(graph, found, delay) == pytest.approx(min(price(graph, p, delay) for p in fitting))


@settings(deadline=None)  # all pairs of ways of a dense mesh are looked at
@given(graphs())
def test_two_ways_without_a_common_link_are_the_cheapest_pair(graph: Graph) -> None:
    found = disjoint_pair(graph, "a", "g", delay)
    pairs = [
        (one, two)
        for one, two in combinations(all_paths(graph, "a", "g"), 2)
        if not links(one) & links(two)
    ]
    if found is None:
        assert not pairs
        return
    one, two = found
    assert not links(one) & links(two)
    for path in found:
        assert len(set(path)) == len(path)
        assert price(graph, path, delay) < inf
    total = price(graph, one, delay) + price(graph, two, delay)
    assert price(graph, one, delay) <= price(graph, two, delay)
    assert total == pytest.approx(
        min(price(graph, a, delay) + price(graph, b, delay) for a, b in pairs)
    )


@given(graphs(), st.sets(st.sampled_from("bcdef"), max_size=3))
def test_nobody_goes_where_it_costs_infinitely_much(graph: Graph, closed: set[str]) -> None:
    def cost(here: str, other: str, edge: Edge) -> float:
        return inf if here in closed or other in closed else edge.delay

    for found in (
        cheapest(graph, "a", "g", cost),
        constrained(graph, "a", "g", cost, max_hops=6),
        *(disjoint_pair(graph, "a", "g", cost) or ()),
    ):
        assert found is None or not closed & set(found)


def test_strangers_and_oneself_are_reached_by_no_way() -> None:
    graph = network("ab").graph
    assert cheapest(graph, "a", "zz", delay) is None
    assert cheapest(graph, "zz", "a", delay) is None
    assert disjoint_pair(graph, "a", "a", delay) is None
    assert price(graph, ["a", "zz"], delay) == inf


@given(
    st.floats(0, 1e6) | st.none(), st.floats(0, 1e12) | st.none(), st.floats(0, 1), st.floats(0, 9)
)
def test_every_metric_costs_something_and_never_too_much(
    rtt: float | None, rate: float | None, load: float, flaps: float
) -> None:
    edge = Edge(("a", "b"), rtt, rate, load, flaps=flaps)
    edge.weigh()
    for metric in METRICS.values():
        assert 0 < metric(edge) < 50
