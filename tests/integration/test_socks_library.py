"""The SOCKS pair as `python-socks` speaks with it, by SOCKS5 and HTTP CONNECT; and many small loads."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from python_socks import ProxyError
from python_socks.async_.asyncio import Proxy

from tests.support.pair import Pair, running_pair
from tests.support.stack import free_port
from tests.support.web import PAGE, Web, web_server

OBJECTS, AT_ONCE = 500, 32
BYTES, PAUSE = 3, 1.0  # of a target that is slow, and s between two


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with web_server() as running:
        yield running


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with running_pair("--allow", "127.0.0.1/32") as running:
        yield running


async def fetch(proxy: Proxy, host: str, port: int) -> bytes:
    sock = await proxy.connect(host, port, timeout=30)
    reader, writer = await asyncio.open_connection(sock=sock)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("scheme", ["socks5", "http"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_page(pair: Pair, web: Web, scheme: str, host: str):
    proxy = Proxy.from_url(f"{scheme}://127.0.0.1:{pair.socks_port}", rdns=True)
    assert await fetch(proxy, host, web.port) == PAGE


@pytest.mark.parametrize("scheme", ["socks5", "http"])
async def test_a_failure_is_the_proxys(pair: Pair, scheme: str):
    proxy = Proxy.from_url(f"{scheme}://127.0.0.1:{pair.socks_port}")
    with pytest.raises(ProxyError):
        await proxy.connect("10.0.0.1", free_port(), timeout=30)


@pytest.mark.parametrize("scheme", ["socks5", "http"])
async def test_name_and_password(pair: Pair, web: Web, tmp_path: Path, scheme: str):
    users = tmp_path / "users"
    users.write_text("ann:secret\n")
    users.chmod(0o600)
    with pair.another_near("--user-file", str(users)) as port:
        right = Proxy.from_url(f"{scheme}://ann:secret@127.0.0.1:{port}")
        assert await fetch(right, "127.0.0.1", web.port) == PAGE
        for wrong in ("ann:wrong@", ""):
            with pytest.raises(ProxyError):
                await Proxy.from_url(f"{scheme}://{wrong}127.0.0.1:{port}").connect(
                    "127.0.0.1", web.port, timeout=30
                )


async def test_500_small_objects_as_a_browser_loads_them(pair: Pair, web: Web):
    proxy = Proxy.from_url(f"socks5://127.0.0.1:{pair.socks_port}")
    free = asyncio.Semaphore(AT_ONCE)

    async def one() -> bytes:
        async with free:
            return await fetch(proxy, "127.0.0.1", web.port)

    assert await asyncio.gather(*(one() for _ in range(OBJECTS))) == [PAGE] * OBJECTS


async def test_a_target_of_one_byte_a_second_is_passed_on_byte_by_byte(pair: Pair):
    heard: list[asyncio.Event] = [asyncio.Event() for _ in range(BYTES)]

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(BYTES):
            writer.write(bytes((number,)))
            await heard[number].wait()  # nothing is kept back until there is more
            await asyncio.sleep(PAUSE)
        writer.close()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        proxy = Proxy.from_url(f"socks5://127.0.0.1:{pair.socks_port}")
        sock = await proxy.connect("127.0.0.1", server.sockets[0].getsockname()[1], timeout=30)
        reader, writer = await asyncio.open_connection(sock=sock)
        for number in range(BYTES):
            assert await reader.readexactly(1) == bytes((number,))
            heard[number].set()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
