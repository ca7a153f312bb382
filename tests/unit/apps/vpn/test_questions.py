"""Which questions the exit's resolver passes on, and what it makes of the answers."""

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.egress.rules import Rule
from apps.vpn import questions
from apps.vpn.questions import MAX_TCP, NotAnswered, Question, Terms, lifetime

OPEN = Terms()


def query(name: str = "a.example", kind: str = "A", **more: object) -> dns.message.QueryMessage:
    return dns.message.make_query(name, kind, **more)


def question(name: str = "a.example", kind: str = "A") -> Question:
    found = questions.read(query(name, kind).to_wire(), OPEN).question
    assert found is not None
    return found


def reply(
    *records: str, authority: tuple[str, ...] = (), code: str = "NOERROR"
) -> dns.message.QueryMessage:
    """Such as a server would answer: records as `NAME TTL TYPE DATA`."""
    found = dns.message.make_response(query())
    found.answer = [_record(record) for record in records]
    found.authority = [_record(record) for record in authority]
    found.set_rcode(dns.rcode.from_text(code))
    arrived = dns.message.from_wire(found.to_wire(max_size=MAX_TCP))
    assert isinstance(arrived, dns.message.QueryMessage)
    return arrived


def _record(text: str) -> dns.rrset.RRset:
    name, ttl, kind, data = text.split(" ", 3)
    return dns.rrset.from_text(f"{name}.", int(ttl), "IN", kind, data)


def answered(
    found: dns.message.Message, asked: dns.message.Message, age: float = 0, terms: Terms = OPEN
) -> dns.message.Message:
    room = questions.read(asked.to_wire(), terms).room
    read = questions.read(asked.to_wire(), terms)
    return dns.message.from_wire(questions.answer(read, found, age, room, terms))


def test_an_answer_has_the_id_of_who_asked_and_is_as_old_as_it_is() -> None:
    asked = query()
    said = answered(reply("a.example 60 A 51.1.1.1"), asked, age=12.7)
    assert said.id == asked.id
    assert said.flags & dns.flags.QR
    assert said.flags & dns.flags.RA
    assert [rrset.to_text() for rrset in said.answer] == ["a.example. 47 IN A 51.1.1.1"]


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("a.example", "ANY", "REFUSED"),
        ("a.example", "AXFR", "REFUSED"),
        ("localhost", "A", "NXDOMAIN"),
        ("printer.local", "AAAA", "NXDOMAIN"),
        ("db.internal", "A", "NXDOMAIN"),
        ("7.1.168.192.in-addr.arpa", "PTR", "NXDOMAIN"),
        (
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
            "PTR",
            "NXDOMAIN",
        ),
        ("ads.bad.example", "A", "REFUSED"),
        ("ADS.bad.Example", "A", "REFUSED"),
    ],
)
def test_some_questions_are_not_passed_on(name: str, kind: str, code: str) -> None:
    terms = Terms(deny=(Rule.parse("*.bad.example"),))
    asked = questions.read(query(name, kind).to_wire(), terms)
    assert asked.question is None
    said = dns.message.from_wire(questions.refused(asked))
    assert dns.rcode.to_text(said.rcode()) == code


def test_a_class_or_an_operation_that_nobody_needs_is_refused() -> None:
    chaos = query("version.bind", "TXT", rdclass="CH")
    assert questions.read(chaos.to_wire(), OPEN).refusal == dns.rcode.REFUSED
    notify = query()
    notify.set_opcode(4)
    assert questions.read(notify.to_wire(), OPEN).refusal == dns.rcode.NOTIMP
    nothing = dns.message.QueryMessage(7)
    assert questions.read(nothing.to_wire(), OPEN).refusal == dns.rcode.FORMERR


def test_to_an_answer_nothing_is_said() -> None:
    with pytest.raises(NotAnswered):
        questions.read(reply("a.example 60 A 51.1.1.1").to_wire(), OPEN)


@pytest.mark.parametrize("address", ["10.1.1.1", "127.0.0.1", "169.254.169.254", "0.0.0.0"])
def test_a_name_that_leads_into_a_private_network_is_not_told(address: str) -> None:
    found = reply("a.example 60 A 51.1.1.1", f"a.example 60 A {address}")
    said = answered(found, query(use_edns=0))
    assert said.rcode() == dns.rcode.REFUSED
    assert not said.answer
    assert f"{address} is not public" in str(said.options[0].to_text())


@pytest.mark.parametrize("address", ["::1", "fd00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"])
def test_a_private_address_is_hidden_in_any_spelling(address: str) -> None:
    assert answered(reply(f"a.example 60 AAAA {address}"), query()).rcode() == dns.rcode.REFUSED


def test_what_clients_may_reach_they_are_told_of() -> None:
    terms = Terms(allow=(Rule.parse("10.1.0.0/16:443"),))
    said = answered(reply("a.example 60 A 10.1.1.1"), query(), terms=terms)
    assert said.rcode() == dns.rcode.NOERROR
    assert said.answer


def test_what_the_operator_denies_altogether_they_are_not_told_of() -> None:
    terms = Terms(deny=(Rule.parse("51.0.0.0/8"), Rule.parse("52.0.0.0/8:80")))
    assert answered(reply("a.example 60 A 51.1.1.1"), query(), terms=terms).rcode() == 5
    assert answered(reply("a.example 60 A 52.1.1.1"), query(), terms=terms).rcode() == 0


def test_what_does_not_fit_into_a_datagram_is_asked_for_again_over_tcp() -> None:
    found = reply(*(f'a.example 60 TXT "{number:0>200}"' for number in range(20)))
    asked = questions.read(query(kind="TXT").to_wire(), OPEN)
    short = questions.answer(asked, found, 0, asked.room, OPEN)
    assert len(short) <= 512
    assert dns.message.from_wire(short).flags & dns.flags.TC
    whole = dns.message.from_wire(questions.answer(asked, found, 0, MAX_TCP, OPEN))
    assert not whole.flags & dns.flags.TC
    assert sum(len(rrset) for rrset in whole.answer) == 20


def test_a_client_gets_no_larger_datagram_than_passes_everywhere() -> None:
    assert questions.read(query(use_edns=0, payload=4096).to_wire(), OPEN).room == 1232
    assert questions.read(query(use_edns=0, payload=600).to_wire(), OPEN).room == 600
    assert questions.read(query().to_wire(), OPEN).room == 512


ALIAS = "a.example 600 CNAME b.example."
SOA = "example 900 SOA ns.example. h.example. 1 2 3 4 120"


@pytest.mark.parametrize(
    ("found", "seconds"),
    [
        (reply("a.example 60 A 51.1.1.1", "b.example 30 A 51.1.1.2"), 30),
        (reply("a.example 0 A 51.1.1.1"), 0),
        (reply("a.example 9999999 A 51.1.1.1"), 86_400),
        (reply(ALIAS, "b.example 60 A 51.1.1.1"), 60),
        (reply(ALIAS, authority=(SOA,), code="NXDOMAIN"), 120),
        (reply(ALIAS, authority=(SOA,)), 120),
        (reply(ALIAS), 0),
        (reply(ALIAS, authority=("other 900 SOA ns.example. h.example. 1 2 3 4 120",)), 0),
        (reply(ALIAS, "b.example 600 CNAME a.example."), 0),
        (reply(authority=(SOA.replace("900", "99999").replace("120", "99999"),)), 10_800),
        (reply(authority=(SOA,), code="NXDOMAIN"), 120),
        (reply(authority=(SOA,)), 120),
        (reply(code="NXDOMAIN"), 0),
        (reply(code="FORMERR"), 5),
    ],
)
def test_an_answer_is_kept_as_long_as_it_says(
    found: dns.message.QueryMessage, seconds: float
) -> None:
    assert lifetime(found) == seconds


def test_equal_questions_are_one_however_they_are_written() -> None:
    assert question("A.EXAMPLE") == question()
    assert hash(question("A.EXAMPLE")) == hash(question())
    assert question(kind="AAAA") != question()


@given(st.binary(max_size=300))
def test_whatever_comes_is_a_question_or_is_not_answered(wire: bytes) -> None:
    try:
        asked = questions.read(wire, OPEN)
    except NotAnswered:
        return
    if asked.question is None:
        dns.message.from_wire(questions.refused(asked), ignore_trailing=True)


@given(st.binary(max_size=60), st.integers(0, 40))
def test_a_question_with_damaged_bytes_is_read_or_is_not_answered(noise: bytes, at: int) -> None:
    wire = bytearray(query(use_edns=0).to_wire())
    wire[at : at + len(noise)] = noise
    try:
        asked = questions.read(bytes(wire), OPEN)
        found = reply("a.example 60 A 51.1.1.1")
        questions.answer(asked, found, 1, asked.room, OPEN)
        questions.refused(asked)
    except NotAnswered:
        pass


def test_a_question_that_would_take_long_to_read_is_not_read() -> None:
    with pytest.raises(NotAnswered, match="60000 bytes"):
        questions.read(bytes(60_000), OPEN)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8))
def test_an_answer_with_damaged_bytes_is_passed_on_or_is_none(
    damage: list[tuple[int, int]],
) -> None:
    found = reply(
        "a.example 60 A 51.1.1.1", "a.example 60 CNAME b.example.", "a.example 60 MX 1 m.example.",
        "a.example 60 SVCB 1 . alpn=h2", authority=(SOA,),
    )  # fmt: skip
    wire = bytearray(found.to_wire())
    for at, byte in damage:
        wire[at % len(wire)] = byte
    try:
        read = dns.message.from_wire(bytes(wire), ignore_trailing=True)
    except dns.exception.DNSException:
        return
    if not isinstance(read, dns.message.QueryMessage):
        return
    asked = questions.read(query(use_edns=0).to_wire(), OPEN)
    questions.answer(asked, read, 3, asked.room, OPEN)
    lifetime(read)


def test_an_address_of_another_class_is_none() -> None:
    found = reply("a.example 60 A 10.1.1.1")
    wire = found.to_wire().replace(
        b"\x00\x01\x00\x01\x00\x00\x00\x3c", b"\x00\x01\x00\x05\x00\x00\x00\x3c"
    )
    chaos = dns.message.from_wire(wire)
    assert chaos.answer[0].rdclass == 5
    assert questions.private_address(chaos, OPEN) == ""
    answered(chaos, query())
