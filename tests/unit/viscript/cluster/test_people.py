"""What the command line of one host may do on another."""

import pytest

from bus.identity import from_bytes
from viscript.cluster.people import caller
from viscript.cluster.talk import Directory, HostInfo
from viscript.roles import Role


def key(number: int) -> str:
    return from_bytes(bytes([number]) * 32)


FIRST = HostInfo(name="first", key=key(1), people=[key(11), key(12)], role="admin")
BETA = HostInfo(name="beta", key=key(2), people=[key(21)], role="view")
GONE = HostInfo(name="gone", key=key(3), people=[key(31)], role="admin", state="revoked")
ALL = Directory([FIRST, BETA, GONE])


@pytest.mark.parametrize(
    ("own", "grant", "who", "role"),
    [
        (FIRST, "admin", key(21), Role.VIEW),  # as its invitation says
        (BETA, "operate", key(11), Role.OPERATE),  # as `join --grant` says, whatever it may at home
        (BETA, "admin", key(12), Role.ADMIN),
        (BETA, "none", key(11), None),
    ],
)
def test_the_lesser_of_invitation_and_grant(own, grant, who, role) -> None:
    found = caller(ALL, own.key, grant, who)
    assert found is not None
    assert found.role == role


def test_a_host_that_was_revoked_has_no_people() -> None:
    assert caller(ALL, FIRST.key, "admin", key(31)) is None


def test_daemons_apps_and_strangers_are_nobody() -> None:
    for who in (key(2), key(99)):
        assert caller(ALL, FIRST.key, "admin", who) is None


def test_who_is_meant_is_named_with_its_host() -> None:
    found = caller(ALL, FIRST.key, "admin", key(21))
    assert found is not None
    assert found.name == "beta:cli"
