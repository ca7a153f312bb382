import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from unittest import mock

import pytest

from apps.egress.hostnames import address_of
from apps.egress.rules import Policy, Rule
from apps.socks import upkeep
from apps.socks.answers import Family, Outcome
from apps.socks.dial import DialError, Gate, dial
from apps.socks.messages import Destination
from apps.socks.protocol import Reply
from apps.socks.resolver import Resolver

LOOPBACK = Policy([Rule.parse("127.0.0.0/8"), Rule.parse("::1/128")])
NOWHERE = Resolver([("127.0.0.1", 9)])


def _has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


IPV6 = _has_ipv6()


@contextlib.contextmanager
def listening(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as server:
        yield server.getsockname()[1]


class Told(Resolver):
    """A resolver that answers with these addresses, each family after so many seconds."""

    def __init__(self, *addresses: str, a: float = 0, aaaa: float = 0) -> None:
        super().__init__()
        self._found = [address_of(text) for text in addresses]
        self._delays = {"A": a, "AAAA": aaaa}

    async def ask(self, name: str, family: Family) -> Outcome:
        await asyncio.sleep(self._delays[family])
        version = 4 if family == "A" else 6
        found = tuple(address for address in self._found if address.version == version)
        return Outcome(found, "" if found else "no address")


async def refusal(
    host: str,
    port: int,
    policy: Policy = LOOPBACK,
    seconds: float = 10,
    resolver: Resolver = NOWHERE,
) -> Reply:
    with pytest.raises(DialError) as caught:
        await dial(Destination(host, port), Gate(policy, resolver), seconds)
    return caught.value.refusal.code


async def reached(host: str, port: int, resolver: Resolver = NOWHERE) -> str:
    with await dial(Destination(host, port), Gate(LOOPBACK, resolver), 10) as found:
        return str(found.getpeername()[0])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433"])
async def test_an_allowed_target_is_reached_however_it_is_spelled(host: str):
    with listening() as port:
        found = await dial(Destination(host, port), Gate(LOOPBACK, NOWHERE), 10)
        with found:
            assert found.getpeername() == ("127.0.0.1", port)
            assert found.gettimeout() == 0


@pytest.mark.skipif(not IPV6, reason="this machine has no IPv6 loopback")
async def test_brackets_around_an_address_are_understood():
    with listening("::1") as port:
        assert await reached("[::1]", port) == "::1"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "127.1",
        "[::1]",
        "::1",
        "::ffff:127.0.0.1",
        "[::ffff:7f00:1]",
        "64:ff9b::7f00:1",
        "0.0.0.0",
        "169.254.169.254",
    ],
)
async def test_without_an_entry_the_exit_itself_is_out_of_reach(host: str):
    with listening() as port:
        assert await refusal(host, port, Policy()) is Reply.NOT_ALLOWED


async def test_a_closed_port_is_refused():
    with listening() as port:
        pass
    assert await refusal("127.0.0.1", port) is Reply.REFUSED


@pytest.mark.parametrize(
    "host", ["does-not-exist.invalid", "a" * 70 + ".invalid", "..", "[", "]", "a\0b", "ü" * 90]
)
async def test_a_name_that_does_not_resolve(host: str):
    assert await refusal(host, 80) is Reply.HOST_UNREACHABLE


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENETUNREACH, Reply.NETWORK_UNREACHABLE),
        (errno.EHOSTUNREACH, Reply.HOST_UNREACHABLE),
        (errno.ETIMEDOUT, Reply.TIMED_OUT),
        (errno.EACCES, Reply.NOT_ALLOWED),
        (errno.EMFILE, Reply.GENERAL),
    ],
)
async def test_every_failure_has_its_code(number: int, code: Reply):
    async def fail(*_: object) -> None:
        raise OSError(number, "no")

    with mock.patch("apps.socks.dial.connected", fail):
        assert await refusal("127.0.0.1", 80) is code


async def test_a_target_that_does_not_answer_times_out():
    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    with mock.patch("apps.socks.dial.connected", hang):
        assert await refusal("127.0.0.1", 80, seconds=0.1) is Reply.TIMED_OUT


async def test_a_resolver_that_does_not_answer_times_out():
    assert await refusal("a.test", 80, seconds=0.1, resolver=Told(a=60, aaaa=60)) is Reply.TIMED_OUT


async def test_of_a_name_with_forbidden_addresses_only_the_permitted_are_dialled():
    with listening() as port:
        assert await reached("a.test", port, Told("10.0.0.1", "127.0.0.1")) == "127.0.0.1"


async def test_a_name_that_points_at_this_machine_is_refused():
    """DNS rebinding: what the policy sees is what would be dialled."""
    with listening() as port:
        told = Told("127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254")
        assert await refusal("a.test", port, Policy(), resolver=told) is Reply.NOT_ALLOWED


async def test_a_name_that_is_denied_is_not_resolved():
    class Never(Resolver):
        async def ask(self, name: str, family: Family) -> Outcome:
            raise AssertionError(name)

    policy = Policy(deny=[Rule.parse("*.test")])
    assert await refusal("a.test", 80, policy, resolver=Never()) is Reply.NOT_ALLOWED


async def test_the_next_address_is_tried_when_the_first_refuses():
    with listening("127.0.0.2") as port:
        assert await reached("a.test", port, Told("127.0.0.1", "127.0.0.2")) == "127.0.0.2"


async def test_the_next_address_is_tried_beside_one_that_does_not_answer():
    with listening("127.0.0.2") as port, not_answering("127.0.0.1"):
        assert await reached("a.test", port, Told("127.0.0.1", "127.0.0.2")) == "127.0.0.2"


async def test_when_all_fail_the_first_ones_failure_is_told():
    with listening() as port:
        pass
    assert await refusal("a.test", port, resolver=Told("127.0.0.1", "127.0.0.2")) is Reply.REFUSED


@contextlib.contextmanager
def not_answering(*silent: str) -> Iterator[list[str]]:
    """Connections to these addresses hang; gives the addresses in the order they were tried."""
    tried: list[str] = []
    real = upkeep.connected

    async def connect(sock: socket.socket, address: tuple[str, int]) -> None:
        tried.append(address[0])
        if address[0] in silent:
            await asyncio.sleep(60)
        await real(sock, address)

    with mock.patch("apps.socks.dial.connected", connect):
        yield tried


async def test_ipv6_is_tried_first_and_the_families_take_turns():
    told = Told("127.0.0.2", "127.0.0.3", "::1", "fd00::1")
    policy = Policy([Rule.parse("127.0.0.0/8"), Rule.parse("::/0")])
    silent = ("127.0.0.2", "::1", "fd00::1")
    with listening("127.0.0.3") as port, not_answering(*silent) as tried:
        (await dial(Destination("a.test", port), Gate(policy, told), 10)).close()
    assert tried[:4] == ["::1", "127.0.0.2", "fd00::1", "127.0.0.3"]


async def test_ipv4_does_not_wait_for_a_family_whose_answer_is_late():
    with listening() as port:
        assert await reached("a.test", port, Told("127.0.0.1", aaaa=60)) == "127.0.0.1"


async def test_addresses_that_come_late_are_tried_when_the_early_ones_fail():
    with listening("127.0.0.1") as port, not_answering("fd00::1"):
        told = Told("127.0.0.1", "fd00::1", a=0.3)
        assert await reached("a.test", port, told) == "127.0.0.1"


async def test_of_a_name_with_very_many_addresses_few_are_dialled():
    many = [f"127.0.1.{number}" for number in range(1, 100)]
    with listening() as port:
        pass
    with not_answering() as tried:
        assert await refusal("a.test", port, resolver=Told(*many)) is Reply.REFUSED
    assert len(tried) == 8
