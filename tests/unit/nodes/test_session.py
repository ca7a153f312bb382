"""Two sessions and the roads between them: what is lost, and what is not."""

import os

import pytest

from nodes import wire
from nodes.actions import Dead, Switched, Wanted
from nodes.keying import REKEY_AFTER
from nodes.wire import Code
from tests.support.roads import Country, Road


def joined() -> tuple[Country, Road]:
    country = Country()
    road = country.build()
    country.join()
    return country, road


def test_records_of_all_lanes_arrive_in_order_and_are_acknowledged() -> None:
    country, _road = joined()
    for number in range(50):
        assert country.send(0, number % 5, b"record %d" % number)
    country.settle()
    country.wait(0.2)
    for lane in range(5):
        assert country.b.got[lane] == [b"record %d" % n for n in range(lane, 50, 5)]
    assert country.a.session.outgoing.kept == 0
    assert country.a.session.round_trip is not None


def test_nothing_in_the_clear_is_on_the_road() -> None:
    country, road = joined()
    country.send(0, 1, b"a secret that nobody sees")
    assert not any(b"secret" in frame for queue in road.queues for frame in queue)


def test_what_was_on_a_road_that_is_cut_goes_again_on_the_other() -> None:
    country, road = joined()
    country.build(standby=True)
    sent = [os.urandom(100) for _ in range(20)]
    for record in sent[:10]:
        country.send(0, 2, record)
    for _ in range(3):
        country.deliver(road, 0)
    country.cut(road)
    for record in sent[10:]:
        country.send(0, 2, record)
    country.settle()
    assert country.b.got[2] == sent
    assert any(isinstance(action, Wanted) for action in country.a.other)


def test_a_road_that_swallows_everything_is_left_within_four_seconds() -> None:
    country, road = joined()
    country.build(standby=True)
    road.swallows = True
    country.send(0, 1, b"where are you")
    country.wait(4.5)
    assert country.b.got[1] == [b"where are you"]
    assert country.a.session.ways.used is not road.ways[0]


def test_streams_are_cut_only_when_no_road_came_back_in_time() -> None:
    country, road = joined()
    country.a.session.flows.open(80, b"hi")
    country.cut(road)
    country.wait(29)
    assert not country.a.ended
    country.wait(3)
    assert [ended.code for ended in country.a.ended] == [Code.LINK_LOST]
    assert len(country.a.ended[0].streams) == 1


def test_a_road_that_comes_back_in_time_loses_nothing() -> None:
    country, road = joined()
    country.a.session.flows.open(80, b"hi")
    country.send(0, 3, b"before")
    country.cut(road)
    country.wait(25)
    country.send(0, 3, b"between")
    country.build()
    country.send(0, 3, b"after")
    country.settle()
    assert country.b.got[3] == [b"before", b"between", b"after"]
    assert not country.a.ended


def test_frames_that_were_lost_without_a_word_are_sent_again() -> None:
    country, road = joined()
    for number in range(6):
        country.send(0, 4, b"%d" % number)
    road.queues[0].popleft()
    del road.queues[0][3]
    country.wait(3)
    assert country.b.got[4] == [b"%d" % number for number in range(6)]


def test_the_last_frame_of_all_is_missed_too() -> None:
    country, road = joined()
    country.send(0, 4, b"the only one")
    road.queues[0].clear()
    country.wait(4)
    assert country.b.got[4] == [b"the only one"]


def test_duplicates_are_dropped_and_counted() -> None:
    country, road = joined()
    country.send(0, 1, b"once")
    frame = bytearray(road.queues[0][-1])
    for _ in range(5):
        country.arrive(road, 1, bytearray(frame))
    assert country.b.got[1] == [b"once"]
    assert country.b.session.incoming.duplicates == 4


def test_a_recorded_acknowledgement_is_taken_once() -> None:
    country, road = joined()
    country.a.session.acknowledge(country.a.now)
    country.act(0)
    frame = bytearray(road.queues[0][-1])
    country.settle()
    country.arrive(road, 1, frame)
    assert country.b.session.replayed == 1


@pytest.mark.parametrize("at", [0, 1, 2, 8, 16, 40])
def test_a_frame_that_somebody_changed_does_not_open(at: int) -> None:
    country, road = joined()
    country.send(0, 1, b"x" * 40)
    frame = road.queues[0][-1]
    if at == 0:
        frame[-1] ^= 1
    elif at == 1:
        frame[1] = 2  # another lane
    elif at == 2:
        frame[2] ^= 1  # another epoch
    else:
        frame[at + 7 if at == 8 else at] ^= 1
    country.deliver(road, 0)
    assert country.b.got == [[]] * 5


def test_label_and_ttl_are_the_relays_to_change() -> None:
    country, road = joined()
    country.send(0, 1, b"x")
    road.queues[0][-1][3:8] = b"\x01abcd"
    country.settle()
    assert country.b.got[1] == [b"x"]


def test_a_road_on_which_frames_do_not_open_is_left_by_both() -> None:
    country, road = joined()
    country.build(standby=True)
    for number in range(9):
        country.send(0, 1, b"%d" % number)
        road.queues[0][-1][-1] ^= 1
    country.settle()
    country.wait(1)
    assert country.a.session.ways.used is not road.ways[0]
    assert country.b.session.ways.used is not road.ways[1]
    assert country.b.got[1] == [b"%d" % number for number in range(9)]


def test_new_keys_every_two_minutes_and_nothing_is_lost() -> None:
    country, _road = joined()
    first = country.a.session.keys.epoch
    sent = []
    for number in range(int(REKEY_AFTER) * 3):
        sent.append(b"%d" % number)
        country.send(0, 1, sent[-1])
        country.wait(1)
    assert country.b.got[1] == sent
    assert (country.a.session.keys.epoch - first) & 255 == 2
    assert country.b.session.keys.epoch == country.a.session.keys.epoch
    assert not country.a.ended
    assert not country.b.ended


def test_frames_under_the_keys_before_are_still_taken() -> None:
    country, road = joined()
    country.send(0, 1, b"old")
    held = road.queues[0].pop()
    country.a.session.keying.begin(country.a.now)
    country.wait(1)
    assert country.b.got[1] == []
    country.arrive(road, 1, held)
    assert country.b.got[1] == [b"old"]
    country.wait(62)
    assert len(country.b.session.keys.into) == 1


def test_a_lost_confirmation_of_new_keys_loses_no_stream() -> None:
    country, road = joined()
    country.a.session.flows.open(80, b"")
    country.a.session.keying.begin(country.a.now)
    country.a.session.handle_timer(country.a.now)
    country.act(0)
    country.deliver(road, 0)  # the offer
    country.deliver(road, 1)  # the answer
    road.queues[0].clear()  # the frame under the new keys
    country.b.session.keying.pending.clear()
    country.send(0, 1, b"goes on")
    country.wait(10)
    assert country.b.got[1] == [b"goes on"]
    assert not country.a.ended
    assert country.b.session.keys.epoch == country.a.session.keys.epoch


def test_a_peer_that_forgot_everything_gets_a_new_session_and_old_streams_are_cut() -> None:
    country, road = joined()
    flows = country.a.session.flows
    opened, asked = flows.open(80, b""), flows.open(81, b"hi")
    flows.receive(memoryview(wire.opened(opened.number, 100, b"")), opened.lane)
    country.send(0, 1, b"before")
    country.settle()
    country.b.make()
    country.b.session.add_way(road.ways[1], country.b.now)
    country.act(1)
    country.wait(5)
    assert [(ended.streams, ended.code) for ended in country.a.ended] == [
        ([opened], Code.LINK_LOST)
    ]
    again = country.a.session.flows
    assert list(again.streams.values()) == [asked]  # nobody had answered it: it is asked for again
    assert again.outbox[0] == (asked.lane, wire.open_(1, 81, asked.window, b"hi"))
    assert country.send(0, 1, b"after")
    country.settle()
    assert country.b.got[1] == [b"after"]


def test_a_recorded_first_message_changes_nothing() -> None:
    country = Country()
    road = country.build()
    country.a.session.want(country.a.now)
    country.act(0)
    first = bytearray(road.queues[0][0])
    country.settle()
    country.a.session.flows.open(80, b"")
    before = country.b.session.keying.agreed
    country.arrive(road, 1, first)
    assert road.queues[1]  # it is answered, for it may be the peer's
    assert country.b.session.keying.agreed is before
    road.queues[1].clear()
    country.send(0, 1, b"on we go")
    country.wait(5)
    assert country.b.got[1] == [b"on we go"]
    assert not country.a.ended
    assert not country.b.ended


def test_many_first_messages_cost_little() -> None:
    country, _road = joined()
    country.a.session.keying.begin(country.a.now)
    message = country.a.session.keying.due(country.a.now)
    assert message is not None
    for number in range(50):
        bad = bytearray(message)
        bad[-1] ^= number + 1
        country.b.session.keying.message(bytes(bad), country.b.now)
    assert country.b.session.keying.refused == 50


def test_both_begin_at_once_and_the_smaller_keys_stands() -> None:
    country = Country()
    road = country.build()
    for side in (0, 1):
        country.points[side].session.want(country.points[side].now)
        country.act(side)
    assert len(road.queues[0]) == len(road.queues[1]) == 1
    country.wait(1)
    assert country.a.session.up
    assert country.b.session.up
    for side in (0, 1):
        country.send(side, 1, b"hello")
    country.settle()
    assert country.a.got[1] == country.b.got[1] == [b"hello"]


def test_a_handshake_message_that_is_lost_is_sent_again_twice_as_late_each_time() -> None:
    country = Country()
    road = country.build()
    road.swallows = True
    country.a.session.want(country.a.now)
    country.act(0)
    times = []
    for _ in range(4):
        due = country.a.session.next_timer
        times.append(due - country.a.now)
        country.a.now = due
        country.a.session.handle_timer(due)
        country.act(0)
    assert times == pytest.approx([0.25, 0.5, 1.0, 2.0])
    road.swallows = False
    country.wait(3)
    assert country.b.session.keying.agreed is not None or country.b.session.keying.pending


def test_saying_goodbye_ends_the_session_at_both_ends() -> None:
    country, _road = joined()
    country.b.session.flows.open(80, b"")
    country.a.session.hang_up(Code.STOPPING)
    country.act(0)
    country.settle()
    assert [ended.code for ended in country.b.ended] == [Code.STOPPING]
    assert not country.b.session.up


def test_a_standby_that_answers_no_probe_is_reported() -> None:
    country, _road = joined()
    standby = country.build(standby=True)
    for _ in range(6):
        country.wait(5)
        country.a.session.ways.due(country.a.now)
    assert any(
        isinstance(action, Dead) and action.way is standby.ways[0] for action in country.a.other
    )


def test_what_is_kept_is_bounded_by_the_window() -> None:
    country, road = joined()
    while country.send(0, 1, bytes(60_000)):
        pass
    assert country.a.session.outgoing.kept <= country.a.session.outgoing.window + 65_560
    country.settle()
    country.wait(0.2)
    assert country.a.session.outgoing.kept == 0
    assert country.send(0, 1, b"again")
    assert road in country.roads


def test_a_better_road_is_used_at_once_and_nothing_is_lost() -> None:
    country, road = joined()
    for number in range(10):
        country.send(0, 1, b"%d" % number)
    better = country.build()
    assert country.a.session.ways.used is better.ways[0]
    assert any(isinstance(action, Switched) for action in country.a.other)
    country.settle()
    country.cut(road)
    country.send(0, 1, b"10")
    country.settle()
    assert country.b.got[1] == [b"%d" % number for number in range(11)]
