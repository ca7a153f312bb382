"""Two sessions over roads on which everything happens: what must hold whatever the order.

At every moment, for each direction and lane:
- what came out is a beginning of what went in, byte for byte: nothing lost between, doubled, swapped;
- the session that began goes on: no stream of it is cut;
- what a session keeps is bounded by its window, and never grows beyond.
At the end, when a road is left that works: all that went in came out, and nothing is kept.
"""

import hashlib

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nodes.delivery import LANES
from tests.support.roads import Country, Road

SIDE = st.integers(0, 1)
LANE = st.integers(0, LANES - 1)
MAX_ROADS = 3


class Roads(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.country = Country()
        self.sent: list[list[list[bytes]]] = [[[] for _ in range(LANES)] for _ in range(2)]
        self.numbers = 0
        self.kept = dict.fromkeys(self.country.points, 0)

    @initialize()
    def begin(self) -> None:
        self.country.build()
        self.country.join()
        self.country.settle()

    @rule(side=SIDE, lane=LANE, size=st.sampled_from([1, 100, 60_000]), count=st.integers(1, 5))
    def send(self, side: int, lane: int, size: int, count: int) -> None:
        for _ in range(count):
            self.numbers += 1
            record = b"%d:" % self.numbers + bytes(size)
            if self.country.send(side, lane, record):
                self.sent[side][lane].append(record)

    @precondition(lambda self: self.country.roads)
    @rule(data=st.data(), side=SIDE, count=st.integers(1, 20))
    def deliver(self, data: st.DataObject, side: int, count: int) -> None:
        road = self.road(data)
        for _ in range(count):
            self.country.deliver(road, side)

    @precondition(lambda self: self.country.roads)
    @rule(data=st.data(), side=SIDE, what=st.sampled_from(["lose", "double", "change", "swap"]))
    def harm(self, data: st.DataObject, side: int, what: str) -> None:
        """What no honest link does: a relay that wants to hurt, or a data connection that was lost."""
        queue = self.road(data).queues[side]
        if not queue:
            return
        at = data.draw(st.integers(0, len(queue) - 1), label="at")
        if what == "lose":
            del queue[at]
        elif what == "double":
            queue.append(bytearray(queue[at]))
        elif what == "change":
            frame = queue[at]
            frame[data.draw(st.integers(1, len(frame) - 1), label="byte")] ^= 0x41
            frame[0] = 0x22  # of the right version still: else the link would have ended
        else:
            queue.rotate(1)

    @precondition(lambda self: len(self.country.roads) < MAX_ROADS)
    @rule(standby=st.booleans())
    def build(self, standby: bool) -> None:
        self.country.build(standby=standby)

    @precondition(lambda self: self.country.roads)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        self.country.cut(self.road(data))

    @precondition(lambda self: self.country.roads)
    @rule(data=st.data())
    def swallow(self, data: st.DataObject) -> None:
        road = self.road(data)
        road.swallows = not road.swallows

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0]), deliver=st.booleans())
    def wait(self, seconds: float, deliver: bool) -> None:
        self.country.wait(seconds, deliver=deliver)

    @rule(side=SIDE)
    def rekey(self, side: int) -> None:
        point = self.country.points[side]
        if point.session.up:
            point.session.keying.begin(point.now)
            point.session.handle_timer(point.now)
            self.country.act(side)

    @invariant()
    def what_came_is_a_beginning_of_what_went(self) -> None:
        for side in (0, 1):
            got = self.country.points[1 - side].got
            for lane in range(LANES):
                sent = self.sent[side][lane]
                assert got[lane] == sent[: len(got[lane])]

    @invariant()
    def the_session_goes_on(self) -> None:
        for point in self.country.points:
            assert not point.ended

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        for point in self.country.points:
            outgoing = point.session.outgoing
            # A window that narrows takes nothing back of what was sent.
            assert outgoing.kept <= max(outgoing.window + 65_560, self.kept[point])
            self.kept[point] = outgoing.kept
            assert len(point.session.keys.into) <= 80

    def teardown(self) -> None:
        if not any(point.session.up for point in self.country.points):
            return
        for road in self.country.roads:
            road.swallows = False
        self.country.build()
        for _ in range(10):
            if not self.country.roads:
                self.country.build()  # who gives one back asks for another, and gets it
            self.country.wait(4)
        for side in (0, 1):
            got = self.country.points[1 - side].got
            assert digest(got) == digest(self.sent[side])
            assert self.country.points[side].session.outgoing.kept == 0
        self.the_session_goes_on()

    def road(self, data: st.DataObject) -> Road:
        at = data.draw(st.integers(0, len(self.country.roads) - 1), label="road")
        return self.country.roads[at]


def digest(lanes: list[list[bytes]]) -> list[str]:
    return [hashlib.sha256(b"".join(records)).hexdigest() for records in lanes]


TestRoads = Roads.TestCase
TestRoads.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    phases=[Phase.generate],  # shrinking such a run takes minutes; its steps are shown anyway
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
