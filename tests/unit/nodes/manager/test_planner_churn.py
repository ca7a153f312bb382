"""A mesh under random churn, managers that forget everything included.

Always:
- no route passes a node twice; each active and each standby stands in the mesh;
- a pair never has more than its two routes, one that is being built and those that drain.

When all has been quiet for a while:
- a pair has an active route if and only if there is a way, and it uses links that are there;
- its standby shares no link with it wherever two such ways exist (and the other is not much dearer);
- both ends send on the active route;
- nothing stands in the mesh that the manager does not know.
"""

from itertools import combinations, pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nodes.manager.choosing import choose, links
from nodes.manager.paths import cheapest
from tests.support.planned import Ordered
from tests.support.topology import network

NODES = "abcdef"
LINKS = [a + b for a, b in combinations(NODES, 2)]

link = st.sampled_from(LINKS)
node = st.sampled_from(NODES)
pair = st.sampled_from(LINKS)


class Churn(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.mesh = Ordered(network("ab", "bc", "cd", "de", "ef", "af"))
        self.forgetful = False  # a manager has forgotten what it ordered

    @rule(link=link)
    def a_link_is_lost(self, link: str) -> None:
        self.mesh.lose_link(link)

    @rule(link=link)
    def a_link_comes(self, link: str) -> None:
        self.mesh.gain_link(link)

    @rule(link=link, rtt=st.sampled_from([0.001, 0.01, 0.1, 0.9]))
    def a_link_is_measured(self, link: str, rtt: float) -> None:
        self.mesh.measure(link, rtt)

    @rule(pair=pair)
    def a_way_is_wanted(self, pair: str) -> None:
        self.mesh.wanted(pair)

    @rule(pair=pair, data=st.data())
    def a_route_is_lost(self, pair: str, data: st.DataObject) -> None:
        mesh = self.mesh
        found = mesh.planner.pairs.get((pair[0], pair[1]))
        if found is not None and found.routes:
            route = data.draw(st.sampled_from(found.routes))
            at = data.draw(st.sampled_from(["", *route.path]))
            mesh.carry_out(mesh.planner.lost(pair[0], route.name, at, "churn", mesh.now))

    @rule(key=node)
    def a_node_refuses(self, key: str) -> None:
        self.mesh.silent.add(key)
        self.refused = True

    @rule()
    def all_nodes_obey_again(self) -> None:
        self.mesh.silent.clear()

    @rule()
    def building_takes_time(self) -> None:
        self.mesh.slow = True

    @rule()
    def what_is_built_is_ready(self) -> None:
        self.mesh.slow = False
        self.mesh.finish()

    @rule(key=node)
    def a_node_starts_again(self, key: str) -> None:
        mesh = self.mesh
        for name, path in list(mesh.standing.items()):
            if key in (path[0], path[-1]):
                mesh.used = {k: v for k, v in mesh.used.items() if v != name or k[0] != key}
        mesh.carry_out(mesh.planner.restarted(key))

    @rule(order=st.permutations(NODES))
    def the_manager_starts_again(self, order: list[str]) -> None:
        self.forgetful = True
        self.mesh.start_manager()
        for key in order:
            self.mesh.report_standing(key)

    @rule(key=node)
    def a_node_tells_what_stands(self, key: str) -> None:
        self.mesh.report_standing(key)

    @rule(seconds=st.integers(1, 20))
    def time_goes_by(self, seconds: int) -> None:
        self.mesh.later(seconds)

    @invariant()
    def routes_are_sound(self) -> None:
        planner = self.mesh.planner
        for found in planner.pairs.values():
            for route in found.routes:
                assert len(set(route.path)) == len(route.path)
                assert (route.path[0], route.path[-1]) == found.ends
                assert self.mesh.standing[route.name] == route.path

    def known(self) -> set[str]:
        pairs = self.mesh.planner.pairs.values()
        return {route.name for found in pairs for route in found.routes}

    def teardown(self) -> None:
        mesh = self.mesh
        mesh.slow = False
        mesh.silent.clear()
        mesh.finish()
        mesh.later(40)
        if not self.forgetful:  # then it needs no report to take away what it laid
            assert set(mesh.standing) == self.known()
        for _ in range(3):
            mesh.later(40)
            for key in NODES:
                mesh.report_standing(key)
        graph = mesh.topology.graph
        for ends, found in mesh.planner.pairs.items():
            way = cheapest(graph, *ends, lambda _a, _b, edge: edge.delay)
            assert (found.active is None) == (way is None), found
            if found.active is None:
                assert found.standby is None
                continue
            assert all(b in graph[a] for a, b in pairwise(found.active.path))
            for end, peer in (ends, ends[::-1]):
                assert mesh.used.get((end, peer)) == found.active.name
            choice = choose(graph, *ends, mesh.planner.conditions(found))
            if choice is not None and not choice.shared:
                assert found.standby is not None
                assert not links(found.active.path) & links(found.standby.path)
        assert set(mesh.standing) == self.known()


Churn.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestChurn = Churn.TestCase
