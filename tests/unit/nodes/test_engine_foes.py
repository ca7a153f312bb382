"""Whatever a relay throws at the ends of its routes: they stand, stay small, and talk when it is over."""

from collections.abc import Iterator

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodes import wire
from nodes.engine import Engine
from nodes.links.memory import MemoryLink, Nature
from nodes.wire import FrameType
from tests.support.memory_mesh import App, MemoryMesh

ON_ROUTES = [kind for kind in FrameType if kind not in {FrameType.HELLO, FrameType.CLOSE}]
COUNTER = st.one_of(st.integers(0, 40), st.integers(0, (1 << 64) - 1))

thrown = st.tuples(
    st.sampled_from(ON_ROUTES),
    st.integers(0, 15),  # lane
    st.integers(0, 255),  # epoch
    st.integers(0, 255),  # ttl
    st.booleans(),  # with a label that is the relay's to use
    COUNTER,
    st.one_of(st.binary(max_size=120), st.integers(0, wire.MAX_PAYLOAD).map(bytes)),
)


class Foe:
    """a - r - b, where r does its work and more."""

    def __init__(self) -> None:
        self.mesh = MemoryMesh("a", "r", "b", nature=Nature(delay=0.01))
        self.mesh.link("a", "r")
        self.mesh.link("b", "r")
        self.mesh.route("a", "r", "b")
        self.apps = App(), App()
        self.mesh.engines["b"].listeners[80] = self.apps[1]
        self.mesh.run(1.0)

    def ends(self) -> Iterator[tuple[MemoryLink, Engine]]:
        for name in "ab":
            yield self.mesh.links["r", name], self.mesh.engines[name]

    def talk(self) -> None:
        self.apps[0].told.clear()
        self.mesh.open("a", "b", self.apps[0])
        self.mesh.run(5.0)
        self.mesh.engines["b"].accept(self.apps[1].pumps[-1], b"yes")
        self.mesh.run(5.0)
        assert ("opened", b"yes") in self.apps[0].told


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(thrown, max_size=60), st.sampled_from([0.0, 0.5, 4.0]))
def test_frames_of_any_kind_on_its_own_labels_do_no_lasting_harm(
    frames: list[tuple[FrameType, int, int, int, bool, int, bytes]], pause: float
) -> None:
    foe = Foe()
    foe.talk()
    for link, engine in foe.ends():
        labels = list(engine.mesh.tables[foe.mesh.key("r")])
        for kind, lane, epoch, ttl, known, counter, payload in frames:
            label = labels[0] if known else 12345
            head = wire.head(kind, label, counter, lane=lane, epoch=epoch, ttl=ttl)
            link.send(head, payload)
            foe.mesh.run(pause / 20)
    foe.mesh.run(pause)
    for _, engine in foe.ends():
        assert foe.mesh.key("r") in engine.links
        assert sum(len(table) for table in engine.mesh.tables.values()) <= 1
        for session in engine.sessions.values():
            assert len(session.keying.pending) <= 1
            assert session.outgoing.frames < 100
    if any(engine.lane(key) is None for _, engine in foe.ends() for key in engine.sessions):
        foe.mesh.run(1.0)  # it was given back: the manager lays another
        foe.mesh.route("a", "r", "b")
    foe.mesh.run(20.0)
    if foe.mesh.engines["a"].lane(foe.mesh.key("b")) is None:
        foe.mesh.route("a", "r", "b")
        foe.mesh.run(5.0)
    foe.talk()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=20))
def test_random_bytes_cost_the_link_and_nothing_else(frames: list[bytes]) -> None:
    foe = Foe()
    for link, _ in foe.ends():
        for frame in frames:
            link.send(frame)
    foe.mesh.run(1.0)
    for _, engine in foe.ends():
        assert not engine.streams
        assert len(engine.links) <= 1
