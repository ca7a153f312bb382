"""Descriptors that are used again: nobody is cut for what the former owner said; silence is cut."""

import socket
from collections.abc import Iterator

import pytest

from bus.descriptors import Cuts, Owners, cut, inode_of
from bus.routing.peers import Connection

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(10)
        yield ours, theirs


def connection(fd: int, inode: int | None = None) -> Connection:
    return Connection(b"", "key 1", fd, inode_of(fd) if inode is None else inode)


def is_cut(theirs: socket.socket) -> bool:
    theirs.setblocking(False)
    try:
        return theirs.recv(1) == b""
    except BlockingIOError:
        return False


def test_a_connection_is_cut_and_its_descriptor_stays_open(pair: Pair) -> None:
    ours, theirs = pair
    ours.send(b"last words")
    cut(connection(ours.fileno()))
    assert theirs.recv(100) == b"last words"
    assert theirs.recv(100) == b""
    assert inode_of(ours.fileno()) != 0


def test_another_that_has_the_descriptor_now_is_not_cut(pair: Pair) -> None:
    ours, theirs = pair
    cut(connection(ours.fileno(), inode_of(theirs.fileno())))
    cut(connection(ours.fileno(), 0))
    assert not is_cut(theirs)


def test_what_a_lost_connection_said_last_is_not_its_followers(pair: Pair) -> None:
    fd = pair[0].fileno()
    owners = Owners()
    owners.accepted(fd, last=0)
    assert owners.spoke(fd, number=1) == inode_of(fd)
    assert owners.lost(fd) == inode_of(fd)
    assert owners.spoke(fd, number=1) == 0  # nobody has it
    owners.accepted(fd, last=1)
    assert owners.spoke(fd, number=1) == 0  # number 2 has it, and has not spoken
    assert owners.lost(fd) is None
    owners.accepted(fd, last=2)
    assert not owners.owns(fd, 2)
    assert owners.spoke(fd, number=3) == inode_of(fd)


def test_numbers_of_others_in_between_do_not_matter(pair: Pair) -> None:
    fd, other = (end.fileno() for end in pair)
    owners = Owners()
    owners.accepted(fd, last=0)
    owners.accepted(other, last=0)
    assert owners.spoke(other, number=1) == inode_of(other)
    assert owners.spoke(fd, number=2) == inode_of(fd)
    assert owners.spoke(fd, number=2) == inode_of(fd)


def test_who_says_nothing_is_cut_when_its_time_is_over(pair: Pair) -> None:
    ours, theirs = pair
    cuts = Cuts(stay=10)
    cuts.accepted(ours.fileno(), now=100.0)
    assert cuts.next == [110.0]
    assert cuts.carry_out(109.9) == {}
    assert not is_cut(theirs)
    assert cuts.carry_out(110.0) == {"mute": 1}
    assert is_cut(theirs)
    assert cuts.next == []


def test_who_has_spoken_or_is_gone_is_left_alone(pair: Pair) -> None:
    ours, theirs = pair
    cuts = Cuts(stay=10)
    cuts.accepted(ours.fileno(), now=100.0)
    cuts.over(ours.fileno())
    assert cuts.next == []
    assert cuts.carry_out(1000.0) == {}
    assert not is_cut(theirs)


def test_a_descriptor_that_is_used_again_has_its_whole_time(pair: Pair) -> None:
    ours, other = pair
    cuts = Cuts(stay=10)
    cuts.accepted(ours.fileno(), now=100.0)
    cuts.accepted(other.fileno(), now=101.0)
    cuts.accepted(ours.fileno(), now=105.0)
    assert cuts.next == [111.0]
    assert cuts.carry_out(112.0) == {"mute": 1}
    assert cuts.next == [115.0]


def test_who_is_to_be_cut_soon_is_cut_then(pair: Pair) -> None:
    ours, theirs = pair
    cuts = Cuts(stay=10)
    cuts.soon(connection(ours.fileno()), when=5.0)
    assert cuts.next == [5.0]
    cuts.carry_out(4.9)
    assert not is_cut(theirs)
    assert cuts.carry_out(5.0) == {}
    assert is_cut(theirs)
