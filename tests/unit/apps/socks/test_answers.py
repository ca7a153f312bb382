import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.socks.answers import MAX_ADDRESSES, Answer, Family, Truncated, Useless, question, read

SOA = "a.test. 300 IN SOA ns.test. me.test. 1 2 3 4 60"


def asked(family: Family = "A", number: int = 7) -> dns.message.QueryMessage:
    return question("www.a.test", family, number, edns=True)


def answer(*records: str, authority: tuple[str, ...] = (), rcode: int = 0, flags: int = 0) -> bytes:
    message = dns.message.make_response(asked(), recursion_available=True)
    message.set_rcode(dns.rcode.Rcode(rcode))
    message.flags |= flags
    for section, lines in ((message.answer, records), (message.authority, authority)):
        for line in lines:
            name, ttl, family, kind, value = line.split(maxsplit=4)
            section.append(dns.rrset.from_text(name, int(ttl), family, kind, value))
    return message.to_wire(max_size=65535)


def told(data: bytes, family: Family = "A") -> Answer:
    verdict = read(data, asked(family))
    assert isinstance(verdict, Answer)
    return verdict


def addresses(verdict: Answer) -> list[str]:
    return [str(address) for address in verdict.outcome.addresses]


def test_addresses_are_found_at_the_end_of_the_aliases_with_the_shortest_life():
    found = told(
        answer(
            "www.a.test. 300 IN CNAME b.test.",
            "b.test. 20 IN A 192.0.2.1",
            "c.test. 1 IN A 192.0.2.9",
        )
    )
    assert addresses(found) == ["192.0.2.1"]
    assert found.ttl == 20


def test_what_does_not_belong_to_the_question_is_not_taken():
    assert addresses(told(answer("other.test. 300 IN A 192.0.2.1"))) == []


def test_a_name_that_is_not_there_lives_as_long_as_its_zone_says():
    found = told(answer(authority=(SOA,), rcode=dns.rcode.NXDOMAIN))
    assert (found.outcome.reason, found.ttl) == ("no such name", 60)


def test_a_name_without_addresses_of_the_family():
    found = told(answer(authority=(SOA,)))
    assert (found.outcome.reason, found.ttl) == ("no address", 60)


@pytest.mark.parametrize("code", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
def test_a_server_that_fails_is_useless(code: int):
    assert read(answer(rcode=code), asked()) == Useless(dns.rcode.to_text(dns.rcode.Rcode(code)))


@pytest.mark.parametrize("code", [dns.rcode.FORMERR, dns.rcode.NOTIMP])
def test_a_server_that_does_not_know_edns_is_asked_without(code: int):
    verdict = read(answer(rcode=code), asked())
    assert isinstance(verdict, Useless)
    assert verdict.plain
    plain = question("www.a.test", "A", 7, edns=False)
    again = read(answer(rcode=code), plain)
    assert isinstance(again, Useless)
    assert not again.plain


def test_a_truncated_answer_is_asked_for_again():
    assert read(answer(flags=dns.flags.TC), asked()) == Truncated()


def test_a_server_that_only_refers_to_others_is_useless():
    data = bytearray(answer(authority=("test. 300 IN NS ns.test.",)))
    data[3] &= 0x7F  # recursion available
    assert isinstance(read(bytes(data), asked()), Useless)


def test_answers_to_other_questions_are_none():
    good = answer("www.a.test. 300 IN A 192.0.2.1")
    assert read(good, asked(number=8)) is None
    assert read(good, question("www.b.test", "A", 7, edns=True)) is None
    assert read(good, asked("AAAA")) is None
    assert read(asked().to_wire(), asked()) is None  # our own question, sent back
    assert read(b"", asked()) is None


def test_aliases_in_a_circle_are_an_answer_that_cannot_be_read():
    circle = answer("www.a.test. 9 IN CNAME b.test.", "b.test. 9 IN CNAME www.a.test.")
    assert isinstance(read(circle, asked()), Useless)


def test_of_very_many_addresses_some_are_taken():
    lines = [f"www.a.test. 300 IN A 192.0.{number // 256}.{number % 256}" for number in range(200)]
    message = dns.message.make_response(asked(), recursion_available=True)
    values = [line.split()[-1] for line in lines]
    message.answer.append(dns.rrset.from_text_list("www.a.test.", 300, "IN", "A", values))
    found = told(message.to_wire(max_size=65535))
    assert len(found.outcome.addresses) == MAX_ADDRESSES


def test_a_life_beyond_all_reason_is_none():
    message = dns.message.make_response(asked(), recursion_available=True)
    message.answer.append(dns.rrset.from_text("www.a.test.", 1, "IN", "A", "192.0.2.1"))
    data = message.to_wire()
    place = data.rindex(b"\0\0\0\1\0\4")
    forged = data[:place] + b"\xff\xff\xff\xff" + data[place + 4 :]
    assert told(forged).ttl <= 2**31


@given(st.binary(max_size=600))
def test_garbage_never_raises(data: bytes):
    assert read(data, asked()) is None or data[:2] == b"\0\7"


@given(st.binary(max_size=300))
def test_garbage_with_the_right_id_never_raises(data: bytes):
    read(b"\0\7" + data, asked())


GOOD = answer(
    "www.a.test. 300 IN CNAME b.test.", "b.test. 20 IN A 192.0.2.1", authority=(SOA,)
)  # fmt: skip


@given(st.lists(st.tuples(st.integers(2, len(GOOD) - 1), st.integers(0, 255)), max_size=8))
def test_answers_with_bytes_changed_never_raise(changes: list[tuple[int, int]]):
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    verdict = read(bytes(data), asked())
    assert verdict is None or isinstance(verdict, Answer | Truncated | Useless)


@given(st.integers(0, len(GOOD)))
def test_answers_that_are_cut_never_raise(end: int):
    read(GOOD[:end], asked())
