"""The memory of replies: how long, how many, how much."""

from bus.routing import replies
from bus.routing.replies import Kept, Replies


def identity(number: int, key: str = "alice") -> tuple[str, str, str | None, str]:
    return key, "app.pay", None, str(number)


def kept(size: int = 0, sender: str = "bob") -> Kept:
    return Kept(sender, "", "", 0, bytes(size))


def test_a_reply_is_found_until_it_expires() -> None:
    memory = Replies()
    memory.keep(identity(1), kept(), 100.0)
    assert memory.next_deadline == 100.0 + replies.KEPT
    assert memory.find(identity(1), 219.9) == kept()
    assert memory.find(identity(1), 220.0) is None
    memory.expire(219.9)
    assert len(memory) == 1
    memory.expire(220.0)
    assert (len(memory), memory.next_deadline) == (0, None)


def test_the_oldest_of_a_key_gives_way_by_number() -> None:
    memory = Replies()
    memory.keep(identity(0, "carol"), kept(), 1.0)
    for number in range(replies.MAX_KEY_REPLIES + 1):
        memory.keep(identity(number), kept(), 2.0)
    assert memory.find(identity(0), 3.0) is None
    assert memory.find(identity(1), 3.0) is not None
    assert memory.find(identity(0, "carol"), 3.0) is not None


def test_the_oldest_of_a_key_gives_way_by_size() -> None:
    memory = Replies()
    third = replies.MAX_KEY_BYTES // 3
    for number in range(4):
        memory.keep(identity(number), kept(third), 1.0)
    assert [memory.find(identity(n), 2.0) is not None for n in range(4)] == [
        False,
        True,
        True,
        True,
    ]
    memory.keep(identity(9), kept(replies.MAX_KEY_BYTES), 1.0)
    assert len(memory) == 1


def test_the_oldest_of_all_gives_way() -> None:
    memory = Replies()
    for number in range(replies.MAX_REPLIES + 1):
        memory.keep(identity(number, f"key {number % 100}"), kept(), 1.0)
    assert len(memory) == replies.MAX_REPLIES
    assert memory.find(identity(0, "key 0"), 2.0) is None
    for number in range(20):
        memory.keep(identity(1, f"large {number}"), kept(replies.MAX_KEY_BYTES), 1.0)
    assert len(memory) == replies.MAX_BYTES // replies.MAX_KEY_BYTES


def test_what_is_larger_than_all_that_a_key_may_have_is_not_kept() -> None:
    memory = Replies()
    memory.keep(identity(1), kept(), 1.0)
    memory.keep(identity(2), kept(replies.MAX_KEY_BYTES + 1), 1.0)
    assert memory.find(identity(2), 1.0) is None
    assert memory.find(identity(1), 1.0) is not None


def test_nothing_for_or_from_a_key_is_left_once_it_is_forgotten() -> None:
    memory = Replies()
    memory.keep(identity(1, "alice"), kept(5, "bob"), 1.0)
    memory.keep(identity(1, "bob"), kept(5, "carol"), 1.0)
    memory.keep(identity(1, "carol"), kept(5, "alice"), 1.0)
    memory.forget("bob")
    assert len(memory) == 1
    assert memory.find(identity(1, "carol"), 1.0) is not None


def test_the_same_kept_again_takes_the_place_of_the_first() -> None:
    memory = Replies()
    half = replies.MAX_KEY_BYTES // 2
    memory.keep(identity(1), kept(half), 1.0)
    memory.keep(identity(1), kept(half, "carol"), 200.0)
    memory.keep(identity(2), kept(half), 200.0)
    assert memory.find(identity(1), 201.0) == kept(half, "carol")
    memory.expire(400.0)
    assert (len(memory), memory._size, memory._shares) == (0, 0, {})
