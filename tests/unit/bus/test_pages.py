"""Lists of any length are told in pages that fit, and read to their end."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import signals, wire
from bus.errors import Refused
from bus.listing import pages as reading
from bus.routing import pages
from bus.routing.sessions import LIMITS
from bus.signals import AccessEntries, AccessEntry, PageQuery, Services
from tests.support.dialogue import Peer, Table, key_of

LISTS = ("$SYS.services", "$SYS.access.list")


def listed(peer: Peer, subject: str, kind: type, query: PageQuery | None = None) -> object:
    """The whole list, as a client reads it."""
    asking = reading(kind, query or PageQuery())
    body = next(asking)
    while True:
        peer.say_later(wire.Request(99, subject, 1000), body)
        [(_, answer)] = peer.hears_bodies()
        assert answer is not None
        assert len(answer) <= LIMITS.payload
        try:
            body = asking.send(answer)
        except StopIteration as end:
            return end.value


@given(st.dictionaries(st.text(max_size=5), st.binary(max_size=900)), st.integers(1, 7))
def test_page_after_page_gives_each_item_once_in_order_and_none_is_over_its_room(
    items: dict[str, bytes], limit: int
) -> None:
    items.pop("", None)  # no place: it means the beginning
    room = pages.FRAME + 1000
    told: list[bytes] = []
    query = PageQuery(limit=limit)
    while True:
        page, following = pages.page(items.items(), query, room)
        assert len(page) <= limit
        assert len(signals.pack(page)) < room
        told += page
        if not following:
            break
        assert page
        query = msgspec.structs.replace(query, after=following)
    assert told == [items[place] for place in sorted(items)]


def test_an_item_that_is_over_the_room_is_a_page_of_its_own() -> None:
    items = [("a", bytes(5000)), ("b", b"")]
    assert pages.page(items, PageQuery(), 2000) == ([bytes(5000)], "a")
    assert pages.page(items, PageQuery("a"), 2000) == ([b""], "")


def test_what_comes_and_goes_between_two_pages_moves_nothing_else() -> None:
    items = {"a": 1, "b": 2, "c": 3, "d": 4}
    first, following = pages.page(items.items(), PageQuery(limit=2), 10_000)
    items = {"aa": 0, "c": 3, "d": 4, "e": 5}
    rest, end = pages.page(items.items(), PageQuery(following), 10_000)
    assert (first, rest, end) == ([1, 2], [3, 4, 5], "")


def test_more_keys_than_fit_into_a_body_are_listed_all_the_same() -> None:
    table = Table(alice="admin")
    alice = table.join("alice")
    long = signals.Rules(publish=[f"{'x' * 200}.{n}" for n in range(60)])
    for number in range(100):
        assert alice.asks("$SYS.access.put", AccessEntry(key_of(f"k{number}"), "k", [], long)) == {}
    found = listed(alice, "$SYS.access.list", AccessEntries)
    assert isinstance(found, AccessEntries)
    assert {entry.key for entry in found.keys} == {
        alice.key,
        *(key_of(f"k{n}") for n in range(100)),
    }
    assert len(found.keys) == 101


def test_services_of_any_number_are_listed() -> None:
    table = Table(bob="app", root="admin")
    root, bob = table.join("root"), table.join("bob")
    for number in range(1024):
        offer = wire.Serve(number, f"app.{number}", "\U0001f600" * 64, "", "\U0001f600" * 255)
        assert bob.say(offer) == [wire.Ok(number)]
    found = listed(root, "$SYS.services", Services)
    assert isinstance(found, Services)
    assert {info.subject for info in found.services} == {f"app.{n}" for n in range(1024)}


@pytest.mark.parametrize("subject", LISTS)
@pytest.mark.parametrize(
    "body", [{"limit": 0}, {"limit": 1001}, {"after": 7}, {"after": "x" * 513}]
)
def test_a_page_that_cannot_be_meant_is_refused(subject: str, body: object) -> None:
    error = Table(alice="admin").join("alice").asks(subject, body)
    assert (error.num, error.err, error.ref) == (400, "bad_body", 99)


def test_a_broker_that_knows_no_pages_is_asked_without_a_word_and_believed() -> None:
    asking = reading(Services, PageQuery())
    assert next(asking) == b""
    with pytest.raises(StopIteration) as end:
        asking.send(signals.pack({"services": []}))
    assert end.value.value == Services([])


def test_an_answer_that_is_no_list_is_refused() -> None:
    asking = reading(Services, PageQuery())
    next(asking)
    with pytest.raises(Refused):
        asking.send(b"\xc1")
