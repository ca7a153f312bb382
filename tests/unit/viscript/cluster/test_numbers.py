"""Ids in a cluster: short, and each of one host."""

from hypothesis import given
from hypothesis import strategies as st

from viscript.cluster.numbers import BLOCK, MAX_RANGES, Block, Numbers, after, holds, joined
from viscript.cluster.registry import Registry


def test_ids_are_taken_in_order_over_the_end_of_a_block() -> None:
    numbers = Numbers((Block(99, 100), Block(301, 301)))
    taken = []
    while found := numbers.take():
        number, numbers = found
        taken.append(number)
    assert taken == [99, 100, 301]
    assert numbers.left == 0


def test_a_block_that_arrives_twice_counts_once() -> None:
    numbers = Numbers().with_block(Block(101, 200)).with_block(Block(101, 200))
    assert numbers.left == BLOCK


def test_a_host_that_was_alone_keeps_the_rest_of_its_block() -> None:
    assert after(0) == Block(1, 100)
    assert after(37) == Block(38, 100)
    assert after(100) == Block(101, 200)


@given(st.integers(0, 5000), st.lists(st.booleans(), max_size=60))
def test_no_id_is_ever_two_hosts(used: int, turns: list[bool]) -> None:
    own = after(used)
    registry = Registry(name="a", handed=own.last)
    mine, theirs = Numbers((own,)), Numbers()
    seen: set[int] = set(range(1, used + 1))
    for first in turns:
        for _ in range(7):
            numbers = mine if first else theirs
            while (found := numbers.take()) is None:
                registry, block = registry.hand_out(used)
                numbers = numbers.with_block(block)
            number, left = found
            assert number not in seen
            seen.add(number)
            mine, theirs = (left, theirs) if first else (mine, left)


@given(st.lists(st.booleans(), max_size=400))
def test_what_a_host_was_given_is_its_own_in_a_bounded_number_of_ranges(turns: list[bool]) -> None:
    kept: tuple[Block, ...] = ()
    given: list[Block] = []
    for turn, mine in enumerate(turns):
        block = Block(turn * BLOCK + 1, (turn + 1) * BLOCK)
        if mine:
            given.append(block)
            kept = joined(kept, block)
        else:
            assert not holds(kept, block.first)
    assert all(holds(kept, block.first) and holds(kept, block.last) for block in given)
    assert len(kept) <= MAX_RANGES
