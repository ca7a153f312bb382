"""Thirty nodes and their manager under random churn: links, nodes, relays, the bus and the manager fail.

Always, whatever happens:
- what a stream brings out is a beginning of what went in, byte for byte: none lost, doubled, swapped;
- no stream is cut, nor refused, while an honest way stands between its ends and manager and bus work;
- a datagram arrives once or never, where it was sent to, as it was sent, and with its sender's key;
- no route passes a node twice, as its labels stand in the tables, and no frame dies of old age;
- no part of a node and of the manager ends by itself, and nothing grows beyond its bound.

When all has been quiet for a while and every node can be reached again:
- a stream has ended at both ends, or all that was said in it has come;
- every two nodes that try reach each other, with streams and with small datagrams;
- what people want for the ways between two nodes holds, whatever was started again since;
- both ends of a pair send on the same route, and the manager knows which;
- no label is left that belongs to no route.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nodes import api, wire
from nodes.delivery import MAX_FRAMES
from nodes.mesh import Relay, Way
from nodes.ways import MAX_WAYS
from nodes.wire import Code
from tests.support.memory_mesh import keypair
from tests.support.talks import Conversation
from tests.support.troubles import unexplained
from tests.support.whole_mesh import FOUL, WholeMesh

if TYPE_CHECKING:
    from nodes.links.memory import MemoryLink
    from tests.support.whole_mesh import Node

NODES = 30
NAMES = [f"n{number}" for number in range(NODES)]
MAX_TALKS = 60  # at once
QUIET = 100.0  # s: relays forget after 60, claims after 15
LOTS = st.integers(0, 1 << 30)


class Churn(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.mesh = WholeMesh(NAMES)
        for number, name in enumerate(NAMES):
            self.mesh.link(name, NAMES[(number + 1) % NODES])
            self.mesh.link(name, NAMES[number * 7 % NODES]) if number * 6 % NODES else None
        self.managed = True
        self.mesh.run(4.0)

    # What people do -----------------------------------------------------------------------------

    @rule(draw=LOTS, count=st.integers(1, 6))
    def talks_begin(self, draw: int, count: int) -> None:
        chance = random.Random(draw)
        for _ in range(count):
            if sum(not talk.over for talk in self.mesh.conversations) < MAX_TALKS:
                talk = self.mesh.talk(*chance.sample(sorted(self.mesh.nodes), 2))
                talk.say(0, chance.choice([1, 1000, 200_000]))
                talk.say(1, chance.choice([0, 1000, 200_000]))

    @rule(draw=LOTS)
    def more_is_said(self, draw: int) -> None:
        chance = random.Random(draw)
        for talk in self.mesh.conversations:
            if not talk.over and not talk.near.finish and chance.random() < 0.5:
                talk.say(chance.randrange(2), chance.choice([10, 50_000, 1_000_000]))

    @rule(draw=LOTS)
    def talks_end(self, draw: int) -> None:
        chance = random.Random(draw)
        for talk in self.mesh.conversations:
            if chance.random() < 0.2:
                talk.hang_up()

    @rule(draw=LOTS, count=st.integers(1, 10))
    def datagrams_are_sent(self, draw: int, count: int) -> None:
        chance = random.Random(draw)
        for _ in range(count):
            near, far = chance.sample(sorted(self.mesh.nodes), 2)
            size = chance.choice([0, 1000, 1200, 20_000, 59_996])
            self.mesh.post.send(self.mesh.nodes[near], self.mesh.nodes[far], size)

    @rule(draw=LOTS)
    def somebody_wants_a_way_around_a_node(self, draw: int) -> None:
        a, b, avoided = random.Random(draw).sample(NAMES, 3)
        keys = [keypair(name).public for name in (a, b, avoided)]
        self.mesh.wish(keys[0], keys[1], api.Policy(avoid=[keys[2]]))

    # What goes wrong ----------------------------------------------------------------------------

    @rule(draw=LOTS)
    def a_link_is_cut(self, draw: int) -> None:
        self.some_link(draw).cut("pulled")

    @rule(draw=LOTS, both=st.booleans())
    def a_link_falls_silent(self, draw: int, both: bool) -> None:
        self.some_link(draw).partition(both=both)

    @rule(draw=LOTS)
    def a_link_is_heard_again(self, draw: int) -> None:
        self.some_link(draw).heal()

    @rule(draw=LOTS)
    def a_link_comes(self, draw: int) -> None:
        self.mesh.link(*random.Random(draw).sample(sorted(self.mesh.nodes), 2))

    @rule(draw=LOTS)
    def a_node_is_killed(self, draw: int) -> None:
        if len(self.mesh.nodes) > NODES // 2:
            self.mesh.kill(self.some_node(draw).name)

    @rule(draw=LOTS)
    def a_node_starts(self, draw: int) -> None:
        away = sorted(set(NAMES) - set(self.mesh.nodes))
        if away:
            chance = random.Random(draw)
            name = chance.choice(away)
            self.mesh.start(name)
            for other in chance.sample(sorted(set(self.mesh.nodes) - {name}), 2):
                self.mesh.link(name, other)

    @rule(draw=LOTS)
    def a_relay_forgets(self, draw: int) -> None:
        """It swallows what it should pass on, and says nothing."""
        mesh = self.some_node(draw).engine.mesh
        entries = [entry for table in mesh.tables.values() for entry in table.values()]
        for entry in entries:
            if isinstance(entry, Relay):
                mesh.remove(entry.route, Code.IDLE)

    @rule(draw=LOTS, how=st.sampled_from(FOUL))
    def a_relay_turns_foul(self, draw: int, how: str) -> None:
        self.some_node(draw).foul = how

    @rule()
    def relays_behave_again(self) -> None:
        for node in self.mesh.nodes.values():
            node.foul = ""

    @rule(draw=LOTS, seconds=st.sampled_from([2.0, 5.0, 40.0]))
    def a_node_is_frozen(self, draw: int, seconds: float) -> None:
        """As by SIGSTOP: its neighbours hear nothing, and for it no time has passed."""
        self.some_node(draw).freeze(seconds)

    @rule(draw=LOTS)
    def a_node_is_off_the_bus(self, draw: int) -> None:
        self.mesh.broker.away.add(self.some_node(draw).key)

    @rule()
    def all_are_on_the_bus(self) -> None:
        self.mesh.broker.away.clear()

    @rule(part=st.sampled_from([0.0, 0.1, 0.5]))
    def the_bus_loses_requests(self, part: float) -> None:
        self.mesh.broker.lossy = part

    @rule()
    def the_manager_is_killed(self) -> None:
        self.mesh.kill_manager()
        self.managed = False

    @rule()
    def a_manager_starts(self) -> None:
        if not self.managed:
            self.mesh.start_manager()
            self.managed = True

    @rule(seconds=st.sampled_from([0.05, 0.5, 2.0, 5.0, 12.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.mesh.run(seconds)

    # What must hold -----------------------------------------------------------------------------

    @invariant()
    def no_route_goes_round(self) -> None:
        by_key = {node.key: node for node in self.mesh.nodes.values()}
        for node in self.mesh.nodes.values():
            assert not node.engine.counters["ttl_ended"]
            for session in node.engine.sessions.values():
                for way in session.ways.all:
                    _follow(by_key, node, way)

    @invariant()
    def no_stream_is_cut_without_a_reason(self) -> None:
        for talk in self.mesh.conversations:
            assert not unexplained(talk), describe(talk)

    @invariant()
    def nothing_grows_beyond_its_bound(self) -> None:
        for node in self.mesh.nodes.values():
            engine = node.engine
            assert len(engine.sessions) < NODES
            for session in engine.sessions.values():
                assert session.outgoing.kept <= wire.MAX_SESSION_WINDOW + wire.MAX_FRAME
                assert session.outgoing.frames <= MAX_FRAMES
                assert len(session.ways.all) <= MAX_WAYS
                assert len(session.keys.into) <= 80

    def teardown(self) -> None:
        try:
            self.all_is_well_again()
        finally:
            self.mesh.close()

    def all_is_well_again(self) -> None:
        mesh = self.mesh
        mesh.broker.away.clear()
        mesh.broker.lossy = 0.0
        self.relays_behave_again()
        mesh.run(max([0.0, *(node.frozen_until - mesh.world.now for node in mesh.nodes.values())]))
        self.a_manager_starts()
        mesh.run(4.0)  # what was silent is dead or heard again
        for link in mesh.links.values():
            link.heal()
        names = sorted(mesh.nodes)
        for number, name in enumerate(names):
            mesh.link(name, names[number - 1])
        mesh.run(QUIET)
        for talk in mesh.conversations:
            orderly = talk.near.code is Code.DONE or not talk.over
            assert talk.complete or not orderly, describe(talk)
        chance = random.Random(1)
        later = [mesh.talk(*chance.sample(names, 2)) for _ in range(20)]
        for talk in later:
            talk.say(0, 100_000)
            talk.say(1, 1000)
        small = [
            mesh.post.send(*(mesh.nodes[name] for name in chance.sample(names, 2)), 1000)
            for _ in range(20)
        ]
        mesh.run(10.0)
        assert not set(small) - mesh.post.arrived
        self.no_stream_is_cut_without_a_reason()
        for talk in later:
            assert talk.complete, describe(talk)
        mesh.run(20.0)
        self.both_ends_agree()
        self.ways_are_as_wanted()
        self.no_label_is_left()

    def both_ends_agree(self) -> None:
        manager = self.mesh.manager
        assert manager is not None
        by_key = {node.key: node for node in self.mesh.nodes.values()}
        for ends, pair in manager._planner.pairs.items():
            if not all(end in by_key for end in ends):
                continue
            assert pair.active is not None, pair
            for end, peer in (ends, ends[::-1]):
                ways = by_key[end].engine.sessions[peer].ways
                assert ways.used is not None
                assert ways.used.route == pair.active.name, (pair, ways)

    def ways_are_as_wanted(self) -> None:
        manager = self.mesh.manager
        assert manager is not None
        planner = manager._planner
        wanted = {(wish.a, wish.b): wish.policy.avoid for wish in planner.wishes}
        assert wanted == {ends: policy.avoid for ends, policy in self.mesh.wanted.items()}
        for ends, avoid in wanted.items():
            pair = planner.pairs.get(ends)
            if pair is not None and pair.active is not None:
                assert not set(pair.active.path) & set(avoid), pair

    def no_label_is_left(self) -> None:
        manager = self.mesh.manager
        assert manager is not None
        planner = manager._planner
        known = {route.name for pair in planner.pairs.values() for route in pair.routes}
        known |= {pair.building.name for pair in planner.pairs.values() if pair.building}
        known |= {route.name for _, route in planner._draining}
        for node in self.mesh.nodes.values():
            tables = node.engine.mesh.tables
            left = [e for table in tables.values() for e in table.values() if e.route not in known]
            assert not left, (node.name, left)
            assert set(node.engine.mesh._routes) <= known

    def some_link(self, draw: int) -> MemoryLink:
        links = self.mesh.links
        return links[sorted(links)[draw % len(links)]]

    def some_node(self, draw: int) -> Node:
        nodes = self.mesh.nodes
        return nodes[sorted(nodes)[draw % len(nodes)]]


def _follow(by_key: dict[str, Node], node: Node, way: Way) -> None:
    """Go along a way label by label, as a frame would."""
    here, onward, passed = node.key, way.onward, {node.key}
    while onward is not None:
        assert onward.neighbour not in passed, "a route goes round"
        passed.add(onward.neighbour)
        there = by_key.get(onward.neighbour)
        if there is None:
            return
        entry = there.engine.mesh.tables.get(here, {}).get(onward.label)
        here, onward = there.key, entry.onward if isinstance(entry, Relay) else None


def describe(talk: Conversation) -> str:
    near, far = talk.near, talk.far
    return (
        f"{talk.number} {near.node.name} - {far.node.name} {talk.problem} "
        f"{near.sent}/{near.due} -> {far.heard} ({near.code}), "
        f"{far.sent}/{far.due} -> {near.heard} ({far.code})"
    )


TestChurn = Churn.TestCase
TestChurn.settings = settings(
    max_examples=3,
    stateful_step_count=40,
    phases=[Phase.generate],  # a run cannot be made smaller in bearable time; its steps are shown
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
