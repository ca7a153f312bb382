"""Whether another way is worth a change for a pair, and the words for why it is not. Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from nodes import api
from nodes.manager.choosing import Conditions, best, choose, links, score, stand_in
from nodes.manager.metrics import METRICS
from nodes.manager.pairs import NoWay, Ready

if TYPE_CHECKING:
    from nodes.manager.pairs import Action, Pair, Path, Route
    from nodes.manager.topology import Topology

BETTER: Final = 0.8  # of the present cost


def by_hand(topology: Topology, pair: Pair) -> Path | None:
    """The path that somebody laid by hand, while it can be had: else the policy decides."""
    path = pair.by_hand
    if path is None or links(path) & pair.suspects.keys():
        return None
    there = all(other in topology.graph.get(here, {}) for here, other in pairwise(path))
    return path if there else None


def better_way(
    topology: Topology, pair: Pair, active: Route, conditions: Conditions
) -> Path | None:
    """What should be the active way instead of `active`, None when that is good enough."""
    if any(key not in topology.nodes for key in active.path):
        return None  # one of its nodes is off the bus: what it would cost is not known
    graph = topology.graph
    if pair.standby is not None and not pair.standby.links & active.links:
        quick = best(graph, *pair.ends, conditions)  # most often the end of it
        if quick is None or not _worth(topology, tuple(quick), active, conditions):
            return None
    choice = choose(graph, *pair.ends, conditions)
    if choice is None or tuple(choice.active) == active.path:
        return None
    if not allowed(active.path, conditions):
        return tuple(choice.active)
    beside = stand_in(graph, active.path, conditions)
    shared = len(active.links & links(beside)) if beside else len(active.links)
    if choice.shared != shared:
        return tuple(choice.active) if choice.shared < shared else None
    path = tuple(choice.active)
    return path if _worth(topology, path, active, conditions) else None


def _worth(topology: Topology, path: Path, active: Route, conditions: Conditions) -> bool:
    graph = topology.graph
    return path != active.path and (
        not allowed(active.path, conditions)
        or _better(score(graph, path, conditions), score(graph, active.path, conditions))
    )


def better_standby(
    topology: Topology, pair: Pair, active: Route, conditions: Conditions
) -> Path | None:
    """What should stand by instead of the pair's standby, None when that is good enough."""
    standby = pair.standby
    if standby is None:
        return None
    graph = topology.graph
    beside = stand_in(graph, active.path, conditions)
    if beside is None or tuple(beside) == standby.path:
        return None
    fewer = len(active.links & links(beside)) < len(active.links & standby.links)
    known = all(key in topology.nodes for key in standby.path)
    same = len(active.links & links(beside)) == len(active.links & standby.links)
    cheaper = _better(score(graph, beside, conditions), score(graph, standby.path, conditions))
    return tuple(beside) if fewer or (known and same and cheaper) else None


def _better(new: tuple[int, float], old: tuple[int, float]) -> bool:
    return new[0] < old[0] or (new[0] == old[0] and new[1] < BETTER * old[1])


def allowed(path: Path, conditions: Conditions) -> bool:
    policy = conditions.policy
    return (
        policy.min_hops <= len(path) - 1 <= policy.max_hops
        and not conditions.avoid & set(path)
        and conditions.must <= set(path)
    )


def verdict(pair: Pair, *, asked: bool) -> list[Action]:
    """What somebody hears at once who wants a way; with `asked` only one that his policy allows."""
    if pair.active is None:
        return []
    if not asked or _as_wanted(pair, pair.active.path):
        return [Ready(pair.ends)]
    return [] if pair.building else [NoWay(pair.ends, why_no_way(pair))]


def _as_wanted(pair: Pair, path: Path) -> bool:
    return path == pair.by_hand if pair.by_hand else allowed(path, pair.conditions)


def why_no_way(pair: Pair) -> str:
    if pair.by_hand is not None and pair.active is not None:
        return "the route by hand cannot be laid just now"
    text = "there is no path of links between them"
    return text if pair.conditions.policy == api.Policy() else f"{text} that the policy allows"


def why(topology: Topology, pair: Pair, conditions: Conditions) -> list[api.Considered]:
    """The ways of a pair and others that were looked at, each with what came of it."""
    graph = topology.graph
    found: dict[Path, str] = {}
    if pair.active is not None:
        found[pair.active.path] = "active"
    if pair.standby is not None:
        shared = len(pair.standby.links & pair.active.links) if pair.active else 0
        found[pair.standby.path] = (
            f"standby, shares {shared} link(s)" if shared else "standby, shares no link"
        )
    choice = choose(graph, *pair.ends, conditions)
    if choice is not None:
        found.setdefault(tuple(choice.active), _rejected(topology, pair, choice.active, conditions))
    for metric in METRICS:
        policy = api.Policy(metric)  # type: ignore[arg-type]
        other = choose(graph, *pair.ends, Conditions(policy))
        if other is not None:
            verdict = _rejected(topology, pair, other.active, conditions)
            found.setdefault(tuple(other.active), f"the {metric}; {verdict}")
    return [
        api.Considered(list(path), min(score(graph, path, conditions)[1], 1e9), verdict)
        for path, verdict in found.items()
    ]


def _rejected(topology: Topology, pair: Pair, path: list[str], conditions: Conditions) -> str:
    if pair.by_hand is not None:
        return "not taken: a route was laid by hand"
    if not allowed(tuple(path), conditions):
        return "not taken: the policy does not allow it"
    if links(path) & conditions.suspects:
        return "not taken: a link of it failed of late"
    if pair.active is None:
        return "not built yet"
    graph = topology.graph
    if _better(score(graph, path, conditions), score(graph, pair.active.path, conditions)):
        return "better, and taken if it stays so or unless it leaves no standby"
    return "not taken: not better by a fifth"
