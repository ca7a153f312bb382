"""Who has which number at an exit, and how much of its volume is used."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from apps.vpn.addresses import FIRST, Plan, client_network
from apps.vpn.leases import DAY, BadBook, Book, NoRoom
from bus.identity import from_bytes

KEYS = [from_bytes(bytes([number]) * 32) for number in range(30)]
SMALL = Plan.of(KEYS[0], client_network("10.9.9.0/28"))  # 13 clients


def test_a_key_has_its_number_again_when_it_comes_back() -> None:
    book = Book(SMALL)
    number = book.take(KEYS[1], 10)
    book.give_back(KEYS[1], 20)
    assert [book.take(key, 30) for key in KEYS[2:6]].count(number) == 0
    assert book.take(KEYS[1], 40) == number


def test_a_key_has_its_number_again_after_a_restart() -> None:
    book = Book(SMALL)
    numbers = {key: book.take(key, 10) for key in KEYS[:9]}
    again = Book(SMALL)
    again.load(book.dump())
    assert again.leased == 0
    assert {key: again.take(key, 20) for key in reversed(KEYS[:9])} == numbers


def test_when_all_numbers_are_taken_the_one_that_was_here_longest_ago_loses_its() -> None:
    book = Book(SMALL)
    for at, key in enumerate(KEYS[:13]):
        book.take(key, at)
        book.give_back(key, 100 - at)  # the last one was away longest
    freed = book.take(KEYS[20], 200)
    assert book.take(KEYS[12], 300) != freed  # and takes that of the next
    assert book.leased == 2


def test_a_lease_is_never_taken_away_for_another() -> None:
    book = Book(SMALL)
    for key in KEYS[:13]:
        book.take(key, 1)
    with pytest.raises(NoRoom):
        book.take(KEYS[20], 2)
    book.give_back(KEYS[3], 3)
    assert FIRST <= book.take(KEYS[20], 4) < FIRST + 13


def test_volume_is_counted_by_the_day_and_over_a_restart() -> None:
    book = Book(SMALL)
    book.take(KEYS[1], 5)
    book.count(KEYS[1], 700, 5)
    book.count(KEYS[1], 50, DAY - 1)
    assert book.volume(KEYS[1], DAY - 1) == 750
    again = Book(SMALL)
    again.load(book.dump())
    assert again.volume(KEYS[1], DAY - 1) == 750
    assert again.volume(KEYS[1], DAY) == 0
    again.count(KEYS[1], 3, DAY)
    assert again.volume(KEYS[1], DAY) == 3
    again.count(KEYS[9], 3, DAY)  # never heard of
    assert again.volume(KEYS[9], DAY) == 0


@pytest.mark.parametrize("kept", [b"", b"[]", b'{"network": 1}', b"\xff", b'{"entries": {}}'])
def test_a_book_that_was_damaged_is_said_to_be(kept: bytes) -> None:
    with pytest.raises(BadBook):
        Book(SMALL).load(kept)


def test_what_was_kept_for_other_networks_is_not_taken_up() -> None:
    book = Book(Plan.of(KEYS[0], client_network("10.8.0.0/28")))
    book.take(KEYS[1], 10)
    other = Book(SMALL)
    other.load(book.dump())
    assert KEYS[1].encode() not in other.dump()


class Books(RuleBasedStateMachine):
    """Whatever comes and goes, no two leases share a number."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Book(SMALL)
        self.leases: dict[str, int] = {}
        self.now = 0.0

    @rule(key=st.sampled_from(KEYS))
    def come(self, key: str) -> None:
        self.now += 1
        try:
            number = self.book.take(key, self.now)
        except NoRoom:
            assert len(self.leases) == SMALL.room
        else:
            assert self.leases.get(key, number) == number
            self.leases[key] = number

    @rule(key=st.sampled_from(KEYS))
    def go(self, key: str) -> None:
        self.now += 1
        self.book.give_back(key, self.now)
        self.leases.pop(key, None)

    @rule()
    def restart(self) -> None:
        again = Book(SMALL)
        again.load(self.book.dump())
        assert again.dump() == self.book.dump()
        for key, number in self.leases.items():
            assert again.take(key, self.now) == number
        self.book = again

    @invariant()
    def numbers_are_apart(self) -> None:
        numbers = list(self.leases.values())
        assert len(set(numbers)) == len(numbers) == self.book.leased
        assert all(FIRST <= number < FIRST + SMALL.room for number in numbers)


TestBooks = Books.TestCase
