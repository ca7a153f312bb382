"""Pings of a session: answered by who holds the key, and by nobody else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.acks import Told
from nodes.links.memory import Nature
from nodes.pings import MAX_ASKED, Pings
from tests.support.memory_mesh import MemoryMesh


def line(delay: float = 0.01) -> MemoryMesh:
    mesh = MemoryMesh("a", "r", "b", nature=Nature(delay=delay))
    mesh.link("a", "r")
    mesh.link("b", "r")
    return mesh


def test_the_far_end_answers_in_the_time_that_the_links_take():
    mesh = line()
    mesh.route("a", "r", "b")
    mesh.run(1)
    heard: list[float] = []
    mesh.engines["a"].ping(mesh.key("b"), heard.append)
    mesh.run(1)
    assert heard == [pytest.approx(0.04, abs=0.005)]


def test_one_that_is_asked_before_there_are_keys_is_sent_when_there_are():
    mesh = line()
    mesh.route("a", "r", "b")
    heard: list[float] = []
    mesh.engines["a"].ping(mesh.key("b"), heard.append)
    assert not mesh.engines["a"].sessions[mesh.key("b")].up
    mesh.run(2)
    assert heard == [pytest.approx(0.04, abs=0.005)]


def test_nobody_answers_for_a_node_that_has_gone():
    mesh = line()
    mesh.route("a", "r", "b")
    mesh.run(1)
    mesh.links["b", "r"].cut("gone")
    heard: list[float] = []
    mesh.engines["a"].ping(mesh.key("b"), heard.append)
    mesh.run(5)
    assert not heard


def test_a_question_to_a_node_without_a_route_is_no_error():
    mesh = line()
    mesh.engines["a"].ping(mesh.key("b"), lambda _: None)


@given(st.binary(max_size=40))
def test_what_is_no_ping_is_not_answered(record: bytes):
    told: list[bytes] = []
    Pings(told.append).heard(memoryview(record), 0.0)
    assert bool(told) == (len(record) >= 9 and record[0] == Told.PING)
    assert all(len(answer) == 9 for answer in told)


def test_an_answer_counts_once_and_only_to_what_was_asked():
    told: list[bytes] = []
    heard: list[float] = []
    pings = Pings(told.append)
    pings.ask(heard.append)
    pings.flush(1.0)
    answer = bytes([Told.PONG]) + told[0][1:]
    other = bytes([Told.PONG]) + bytes(8)
    for record in (other, answer, answer):
        pings.heard(memoryview(record), 3.0)
    assert heard == [2.0]


def test_questions_without_answers_do_not_pile_up():
    told: list[bytes] = []
    heard: list[float] = []
    pings = Pings(told.append)
    for _ in range(MAX_ASKED * 3):
        pings.ask(heard.append)
    pings.flush(0.0)
    assert len(told) == MAX_ASKED
    for _ in range(MAX_ASKED):
        pings.ask(heard.append)
        pings.flush(0.0)
    for record in told:
        pings.heard(memoryview(bytes([Told.PONG]) + record[1:]), 0.0)
    assert len(heard) == MAX_ASKED
