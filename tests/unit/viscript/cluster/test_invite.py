"""How a join string says that the first host is reached."""

import pytest

from viscript.commands.hosts.invite import reachable
from viscript.errors import BadUsage


@pytest.mark.parametrize(
    ("listens", "given", "where"),
    [
        ("tcp://10.0.0.5:7600", None, "tcp://10.0.0.5:7600"),
        ("tcp://0.0.0.0:7600", "bus.example", "tcp://bus.example:7600"),
        ("tcp://0.0.0.0:7600", "bus.example:99", "tcp://bus.example:99"),
        ("tcp://0.0.0.0:7600", "tcp://bus.example:99", "tcp://bus.example:99"),
        ("tcp://[::]:7600", "[2001:db8::1]", "tcp://[2001:db8::1]:7600"),
        ("tcp://[::]:7600", "[2001:db8::1]:99", "tcp://[2001:db8::1]:99"),
        ("tcp://127.0.0.1:7600", "127.0.0.1", "tcp://127.0.0.1:7600"),
    ],
)
def test_as_it_listens_or_as_it_was_said(listens: str, given: str | None, where: str) -> None:
    assert reachable(listens, given) == where


@pytest.mark.parametrize("listens", ["tcp://127.0.0.1:7600", "tcp://[::1]:7600"])
def test_loopback_is_reached_by_nobody_else(listens: str) -> None:
    with pytest.raises(BadUsage, match=r"settings\.broker\.endpoint"):
        reachable(listens, None)
