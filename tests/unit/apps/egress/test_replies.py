import dns.flags
import dns.message
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.egress import replies
from apps.egress.replies import MAX_ANSWER, Unusable

ASKED = dns.message.make_query("a.test", "A", id=7)


def answer(addresses: int = 1, flags: int = 0) -> bytes:
    said = dns.message.make_response(ASKED)
    texts = [f"192.0.2.{number}" for number in range(addresses)]
    said.answer = [dns.rrset.from_text("a.test.", 60, "IN", "A", *texts)]
    said.flags |= flags
    return said.to_wire(max_size=65_535)


def test_an_answer_is_read():
    found = replies.read(answer(), ASKED)
    assert found is not None
    assert str(found.answer[0]) == "a.test. 60 IN A 192.0.2.0"


def test_what_was_cut_in_the_middle_is_known_to_be_truncated():
    found = replies.read(answer(flags=dns.flags.TC)[:-3], ASKED)
    assert found is not None
    assert found.flags & dns.flags.TC


def test_what_is_cut_and_does_not_say_so_is_unusable():
    with pytest.raises(Unusable, match="cannot be read"):
        replies.read(answer()[:-3], ASKED)


@pytest.mark.parametrize("data", [b"", b"\0", answer()[:1], b"\0\x08" + answer()[2:]])
def test_what_has_another_id_or_none_is_no_answer(data: bytes):
    assert replies.read(data, ASKED) is None


def test_a_question_is_no_answer():
    assert replies.read(ASKED.to_wire(), ASKED) is None


def test_what_would_take_long_to_read_is_unusable():
    assert len(answer(256)) > MAX_ANSWER
    with pytest.raises(Unusable, match="too large"):
        replies.read(answer(256), ASKED)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8))
def test_damaged_answers_are_read_or_unusable_or_none(damage: list[tuple[int, int]]):
    wire = bytearray(answer(20))
    for at, byte in damage:
        wire[at % len(wire)] = byte
    try:
        found = replies.read(bytes(wire), ASKED)
    except Unusable:
        return
    assert found is None or found.id == ASKED.id
