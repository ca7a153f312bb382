"""Durable topics in the broker's core: reading from a place, and waiting for what comes."""

from bus import wire
from tests.support.dialogue import Peer, refused
from tests.support.durable import DurableTable, records, store


def test_reading_from_a_sequence_a_time_the_last_and_the_oldest(
    table: DurableTable, ada: Peer
) -> None:
    ben = table.join("ben")
    clock = 1.7e9
    table.router.sessions.clock = lambda: clock
    for body in (b"1", b"2", b"3"):
        store(ben, body)
        clock += 10

    def read(**place: int) -> tuple[list[int], int | None, int | None]:
        *found, ok = ben.say(wire.Read(2, "orders", n=2, **place))
        assert isinstance(ok, wire.Ok)
        return [record.seq for record in found], ok.seq, ok.left  # type: ignore[attr-defined]

    assert read() == ([1, 2], 3, 1)
    assert read(seq=2) == ([2, 3], 4, 0)
    assert read(seq=9) == ([], 9, 0)
    assert read(last=1) == ([3], 4, 0)
    assert read(last=2**63 - 1) == ([1, 2], 3, 1)
    assert read(time=1_700_000_010_000) == ([2, 3], 4, 0)
    assert read(time=1_700_000_000_001) == ([2, 3], 4, 0)
    assert read(time=2**63 - 1) == ([], 4, 0)
    assert read(seq=2**63 - 1) == ([], 2**63 - 1, 0)
    assert refused(ben.say(wire.Read(2, "orders", seq=1, last=1))) == (400, "bad_request", 2)


def test_a_record_tells_who_published_it_where_and_when(table: DurableTable, ada: Peer) -> None:
    ben = table.join("ben")
    store(ben, b"x", s="app.order.paid")
    record, _ = table.join("cyd").say(wire.Read(2, "orders"))
    assert record == wire.Record(2, 1, "app.order.paid", ben.key, 1_700_000_000_000)


def test_a_read_that_waits_gets_what_comes_or_ends_when_its_time_is_over(
    table: DurableTable, ada: Peer
) -> None:
    ben, cyd = table.join("ben"), table.join("cyd")
    assert ben.say(wire.Read(2, "orders", wait=5000)) == []
    assert ben.say(wire.Read(3, "orders", seq=2, wait=5000)) == []
    store(cyd, b"x")
    assert records(ben, 2) == [(1, b"x", 0)]
    table.passes(6)
    assert ben.hears() == [wire.Ok(3, seq=2, left=0)]


def test_a_session_may_wait_for_so_many_things_at_once(table: DurableTable, ada: Peer) -> None:
    ben = table.join("ben")
    for ref in range(256):
        assert ben.say(wire.Read(ref, "orders", wait=20_000)) == []
    assert refused(ben.say(wire.Read(256, "orders", wait=20_000))) == (429, "limit", 256)
    store(ada, b"x")
    assert len(ben.hears()) == 2 * 256
    assert ben.say(wire.Read(1, "orders", seq=2, wait=20_000)) == []


def test_answers_that_wait_to_be_read_are_few_at_a_time(table: DurableTable, ada: Peer) -> None:
    ben = table.join("ben")
    store(ada, b"x")
    table.at_rest = True
    for ref in range(100):
        ben.say_later(wire.Read(ref, "orders"))
    assert len(table.journal.waiting) == 16
    table.at_rest = False
    heard = [c for c in ben.hears() if isinstance(c, wire.Ok)]
    assert [ok.ref for ok in heard] == list(range(100))
