import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Iterator
from unittest import mock

import pytest

from apps.egress.rules import Address, Allow, Policy, address_of
from apps.socks import dial as module
from apps.socks.dial import DialError, dial
from apps.socks.messages import Destination
from apps.socks.protocol import Reply

LOOPBACK = Policy([Allow.parse("127.0.0.0/8"), Allow.parse("::1/128")])


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


@contextlib.contextmanager
def resolving(*addresses: str) -> Iterator[None]:
    def lookup(host: str, port: int) -> list[Address]:
        return [address_of(text) for text in addresses]

    with mock.patch.object(module, "_lookup", lookup):
        yield


async def refusal(host: str, port: int, policy: Policy = LOOPBACK, seconds: float = 5) -> Reply:
    with pytest.raises(DialError) as caught:
        await dial(Destination(host, port), policy, seconds)
    return caught.value.refusal.code


async def reached(host: str, port: int) -> str:
    with await dial(Destination(host, port), LOOPBACK, 5) as found:
        return str(found.getpeername()[0])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433"])
async def test_an_allowed_target_is_reached_however_it_is_spelled(host: str):
    with listening() as port:
        found = await dial(Destination(host, port), LOOPBACK, 5)
        with found:
            assert found.getpeername() == ("127.0.0.1", port)
            assert found.gettimeout() == 0


@pytest.mark.skipif(not IPV6, reason="this machine has no IPv6 loopback")
async def test_brackets_around_an_address_are_understood():
    with listening("::1") as port, await dial(Destination("[::1]", port), LOOPBACK, 5) as found:
        assert found.getpeername()[0] == "::1"


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

    with mock.patch.object(asyncio.get_running_loop(), "sock_connect", fail):
        assert await refusal("127.0.0.1", 80) is code


async def test_a_target_that_does_not_answer_times_out():
    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    with mock.patch.object(asyncio.get_running_loop(), "sock_connect", hang):
        assert await refusal("127.0.0.1", 80, seconds=0.1) is Reply.TIMED_OUT


async def test_a_resolver_that_does_not_answer_times_out():
    def lookup(host: str, port: int) -> OSError:
        time.sleep(0.3)
        return OSError(1, "late")

    with mock.patch.object(module, "_lookup", lookup):
        assert await refusal("slow.example", 80, seconds=0.1) is Reply.TIMED_OUT
        await asyncio.sleep(0.4)  # its late answer hurts nobody


async def test_of_a_name_with_forbidden_addresses_only_the_permitted_are_dialled():
    with listening() as port, resolving("10.0.0.1", "127.0.0.1"):
        assert await reached("mixed.example", port) == "127.0.0.1"


async def test_the_next_address_is_tried_when_the_first_refuses():
    with listening("127.0.0.2") as port, resolving("127.0.0.1", "127.0.0.2"):
        assert await reached("two.example", port) == "127.0.0.2"


async def test_the_next_address_is_tried_beside_one_that_does_not_answer():
    real = asyncio.get_running_loop().sock_connect

    async def connect(sock: socket.socket, address: tuple[str, int]) -> None:
        if address[0] == "127.0.0.1":
            await asyncio.sleep(60)
        await real(sock, address)

    with (
        listening("127.0.0.2") as port,
        resolving("127.0.0.1", "127.0.0.2"),
        mock.patch.object(asyncio.get_running_loop(), "sock_connect", connect),
    ):
        assert await reached("two.example", port) == "127.0.0.2"


async def test_when_all_fail_the_first_ones_failure_is_told():
    with listening() as port:
        pass
    with resolving("127.0.0.1", "127.0.0.2"):
        assert await refusal("two.example", port) is Reply.REFUSED
