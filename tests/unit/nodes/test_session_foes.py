"""What somebody on one route to a peer can do to the session: nothing, while there is another route."""

from nodes.actions import Dead, Emit, Wanted
from nodes.keying import BURST
from nodes.session import KEEP_ALIVE, STRIKES
from nodes.ways import BOUND_WITHIN, MAX_BAD, PROBE_EVERY, Way
from nodes.wire import DATAGRAM_LANE, FrameType, head
from tests.support.roads import LARGE, Country, Road


def joined() -> tuple[Country, Road, Road]:
    """Both ends use the first road; the foe sits on the second."""
    country = Country()
    good = country.build()
    country.join()
    return country, good, country.build(standby=True)


def forged(lane: int, epoch: int, counter: int) -> bytearray:
    top = head(FrameType.DATA, 1, counter, lane=lane, epoch=epoch, ttl=9)
    return bytearray(top) + bytes(60)


def offer(country: Country) -> bytearray:
    """A first message of a, which begins a handshake."""
    session = country.a.session
    session.keying.begin(country.a.now)
    message = session.keying.due(country.a.now)
    assert message is not None
    return bytearray(head(FrameType.HANDSHAKE, 1, ttl=9)) + message


def test_a_first_message_that_is_played_again_does_not_disturb_a_handshake_on_another_route() -> (
    None
):
    country, good, bad = joined()
    recorded = offer(country)
    country.a.session.keying.stop()
    country.a.session.keys.clear()
    fresh = offer(country)
    country.arrive(good, 1, fresh)
    for _ in range(3):
        country.arrive(bad, 1, recorded)
    country.settle()
    assert country.a.session.up
    country.send(0, 1, b"hello")
    country.settle()
    assert country.b.got[1] == [b"hello"]


def test_nonsense_on_one_route_does_not_use_up_the_patience_for_handshakes_on_another() -> None:
    country, good, bad = joined()
    nonsense = bytearray(head(FrameType.HANDSHAKE, 1, ttl=9)) + b"\x01" + bytes(200)
    for _ in range(int(BURST) * 10):
        country.arrive(bad, 1, nonsense)
    epoch = country.b.session.keys.epoch
    country.arrive(good, 1, offer(country))
    country.wait(1)
    assert country.b.session.keys.epoch != epoch


def test_frames_that_do_not_open_on_a_standby_cost_that_one_only() -> None:
    country, good, bad = joined()
    epoch = country.b.session.keys.epoch
    for number in range(MAX_BAD):
        country.arrive(bad, 1, forged(DATAGRAM_LANE, epoch, 1000 + number))
    country.settle()
    assert [point.session.ways.used for point in country.points] == list(good.ways)
    assert [action.way for action in country.b.other if isinstance(action, Dead)] == [bad.ways[1]]


def test_a_lone_route_that_swallows_everything_is_given_back_after_some_seconds() -> None:
    country = Country()
    road = country.build()
    country.join()
    country.a.session.want(country.a.now)
    road.swallows = True
    country.wait(3.0)
    assert country.a.session.ways.used is road.ways[0]
    country.wait(STRIKES + 2 * KEEP_ALIVE)
    assert any(isinstance(action, Dead) for action in country.a.other)
    assert any(isinstance(action, Wanted) for action in country.a.other)
    country.build()
    country.wait(3.0)
    assert country.send(0, 1, b"on")
    country.settle()
    assert country.b.got[1] == [b"on"]
    assert not country.a.ended


def test_a_route_that_swallows_data_but_not_acknowledgements_is_left_in_four_seconds() -> None:
    country, road, _standby = joined()
    assert country.a.session.ways.used is road.ways[0]
    country.wait(3.0)
    road.starves = True
    country.send(0, 1, b"where are you")
    country.wait(4.0)
    assert country.b.got[1] == [b"where are you"]
    assert any(action.way is road.ways[0] for action in country.a.other if isinstance(action, Dead))


def test_a_lone_route_that_swallows_data_only_is_given_back_too() -> None:
    country = Country()
    road = country.build()
    country.join()
    road.starves = True
    country.send(0, 1, b"where are you")
    country.wait(12.0)
    assert any(action.way is road.ways[0] for action in country.a.other if isinstance(action, Dead))


def test_a_route_on_which_frames_are_missing_again_and_again_is_left() -> None:
    country, road, _standby = joined()
    road.drops = 3
    sent = [b"%d" % number for number in range(60)]
    for record in sent:
        country.send(0, 2, record)
        country.wait(0.15)
    country.wait(2)
    assert country.b.got[2] == sent
    assert road.gone


def test_a_route_that_lost_a_frame_once_in_a_while_is_kept() -> None:
    country, road, _standby = joined()
    for _ in range(10):
        country.send(0, 2, b"lost")
        road.queues[0].pop()
        country.send(0, 2, b"not lost")
        country.wait(15)
    assert country.b.got[2] == [b"lost", b"not lost"] * 10
    assert not road.gone


def test_a_lone_route_on_which_no_handshake_is_answered_is_given_back() -> None:
    country = Country()
    road = country.build()
    road.swallows = True
    country.a.session.want(country.a.now)
    country.wait(12.0)
    assert any(isinstance(action, Dead) for action in country.a.other)


def test_a_route_of_which_only_one_direction_was_laid_is_given_back_after_a_minute() -> None:
    country, _good, _bad = joined()
    session = country.a.session
    half = Way("half", LARGE.public)
    session.add_way(half, country.a.now)
    for _ in range(BOUND_WITHIN + 2):
        assert half not in session.ways.due(country.a.now)
        country.a.now += PROBE_EVERY
        session.tick(country.a.now)
    assert half not in session.ways.all
    assert any(action.way is half for action in session.actions if isinstance(action, Dead))


def test_frames_of_a_session_that_is_not_known_ask_for_a_route_once() -> None:
    country = Country()
    way = Way("half", LARGE.public)
    session = country.a.session
    session.add_way(way, country.a.now)
    road = Road("half", (way, way))
    for number in range(100):
        country.arrive(road, 0, forged(1, 7, 1 + number))
    wanted = [action for action in country.a.other if isinstance(action, Wanted)]
    assert len(wanted) == 1
    assert not any(isinstance(action, Emit) for action in session.actions)
