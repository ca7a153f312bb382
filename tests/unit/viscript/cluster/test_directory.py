"""What a host's command line believes of what others answer."""

from viscript.cluster.numbers import Block
from viscript.cluster.talk import Directory, HostInfo

BETA = HostInfo(name="beta", key="b", ids=(Block(101, 200),))
GAMMA = HostInfo(name="gamma", key="c", ids=(Block(201, 300),))
FIRST = HostInfo(name="first", key="a")
KNOWN = Directory([FIRST, BETA, GAMMA], handed=300)


def test_a_host_has_the_ids_that_it_was_given_and_no_others() -> None:
    assert KNOWN.may_have(BETA, 150)
    assert not KNOWN.may_have(BETA, 250)
    assert not KNOWN.may_have(BETA, 7)


def test_a_block_of_which_nothing_was_heard_yet_may_be_anybodys() -> None:
    assert KNOWN.may_have(BETA, 301)


def test_the_first_host_is_believed() -> None:
    assert KNOWN.may_have(FIRST, 150)
