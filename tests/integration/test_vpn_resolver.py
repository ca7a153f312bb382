"""The exit's resolver over real sockets: it asks once, keeps what it hears, and goes over to TCP."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from apps.vpn import resolver as module
from apps.vpn.inside import Doors
from apps.vpn.questions import Terms
from apps.vpn.resolver import MAX_CONNECTIONS_OF_CLIENT, Resolver
from tests.support import internet


class Upstream(asyncio.DatagramProtocol):
    """A server on the internet; silent while `mute`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.says: Callable[[bytes, int], bytes] = internet.answer  # to a question, so many bytes
        self.mute = asyncio.Event()
        self._held: list[tuple[bytes, tuple[str, int]]] = []
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(dns.message.from_wire(data).question[0].name.to_text())
        if self.mute.is_set():
            self._held.append((data, addr))
        else:
            self._transport.sendto(self.says(data, 1232), addr)

    def release(self) -> None:
        self.mute.clear()
        for data, addr in self._held:
            self._transport.sendto(internet.answer(data, 1232), addr)

    async def over_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            said = self.says(wire, 65535)
            writer.write(len(said).to_bytes(2) + said)
            await writer.drain()
        writer.close()


class Scene:
    def __init__(self, upstream: Upstream, resolver: Resolver, port: int) -> None:
        self.upstream = upstream
        self.resolver = resolver
        self.port = port

    async def ask(self, name: str, kind: str = "A") -> dns.message.Message:
        query = dns.message.make_query(name, kind, use_edns=0, payload=1232)
        found, _ = await dns.asyncquery.udp_with_fallback(
            query, "127.0.0.1", timeout=30, port=self.port
        )
        return found


def pair() -> tuple[socket.socket, socket.socket]:
    """UDP and TCP at the same free port."""
    while True:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.settimeout(0)
        udp.bind(("127.0.0.1", 0))
        try:
            tcp = socket.create_server(udp.getsockname())
        except OSError:
            udp.close()
            continue
        tcp.settimeout(0)
        return udp, tcp


@contextlib.asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    loop = asyncio.get_running_loop()
    far_udp, far_tcp = pair()
    transport, upstream = await loop.create_datagram_endpoint(Upstream, sock=far_udp)
    server = await asyncio.start_server(upstream.over_tcp, sock=far_tcp)
    udp, tcp = pair()
    port = udp.getsockname()[1]
    resolver = Resolver(Terms(), [far_tcp.getsockname()[:2]])
    serving = asyncio.create_task(resolver.serve(Doors([udp], [tcp])))
    try:
        yield Scene(upstream, resolver, port)
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        transport.close()
        server.close()


async def test_what_was_answered_once_is_not_asked_again() -> None:
    async with scene() as here:
        for _ in range(3):
            found = await here.ask("public.test")
            assert found.answer[0][0].address == "51.1.1.1"
        assert here.upstream.asked == ["public.test."]
        assert here.resolver.figures["cached"] == 2


async def test_many_who_ask_the_same_at_once_are_one_question() -> None:
    async with scene() as here:
        here.upstream.mute.set()
        asking = [asyncio.create_task(here.ask("public.test")) for _ in range(20)]
        async with asyncio.timeout(30):
            while here.resolver.figures["questions"] < 20:
                await asyncio.sleep(0.01)
        here.upstream.release()
        found = await asyncio.gather(*asking)
        assert all(each.answer for each in found)
        assert len(here.upstream.asked) < 4  # the first, and perhaps once more after a time-out


async def test_a_large_answer_comes_over_tcp_from_end_to_end() -> None:
    async with scene() as here:
        found = await here.ask("large.test", "TXT")
        assert len(found.answer[0]) == 18


@pytest.mark.parametrize("name", ["private.test", "mixed.test"])
async def test_a_name_that_leads_into_a_private_network_is_refused(name: str) -> None:
    async with scene() as here:
        found = await here.ask(name)
        assert found.rcode() == dns.rcode.REFUSED
        assert not found.answer


async def test_garbage_is_not_answered_and_does_no_harm() -> None:
    async with scene() as here:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for size in range(200):
                sock.sendto(bytes(range(size)), ("127.0.0.1", here.port))
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(b"\x00\x05garble" * 10)
        assert await reader.read() == b""
        writer.close()
        assert (await here.ask("public.test")).answer


async def test_a_client_has_so_many_connections_and_no_more() -> None:
    async with scene() as here:
        held = [
            await asyncio.open_connection("127.0.0.1", here.port)
            for _ in range(MAX_CONNECTIONS_OF_CLIENT)
        ]
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            assert await reader.read() == b""
        for _, each in (*held, (reader, writer)):
            each.close()


async def test_without_a_server_that_answers_it_says_that_it_failed(tmp_path: Path) -> None:
    closed, other = pair()
    port = closed.getsockname()[1]
    closed.close()
    other.close()
    resolver = Resolver(Terms(), [("127.0.0.1", port)])
    query = dns.message.make_query("public.test", "A")
    asked, said = resolver.quickly(query.to_wire())
    assert said is None
    said = await resolver.slowly(asked, "10.0.0.1")
    assert said is not None
    assert dns.message.from_wire(said).rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize("code", ["SERVFAIL", "REFUSED"])
async def test_that_no_server_could_tell_is_believed_for_a_while(code: str) -> None:
    def fail(wire: bytes, _room: int) -> bytes:
        said = dns.message.make_response(dns.message.from_wire(wire), recursion_available=True)
        said.set_rcode(dns.rcode.from_text(code))
        return said.to_wire()

    async with scene() as here:
        here.upstream.says = fail
        assert (await here.ask("public.test")).rcode() == dns.rcode.SERVFAIL
        before = len(here.upstream.asked)
        for _ in range(3):
            assert (await here.ask("public.test")).rcode() == dns.rcode.SERVFAIL
        assert len(here.upstream.asked) == before
        assert here.resolver.figures["failed"] == 4


async def test_silence_of_all_servers_is_believed_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    async with scene() as here:
        here.upstream.mute.set()
        for _ in range(3):
            assert (await here.ask("public.test")).rcode() == dns.rcode.SERVFAIL
        assert len(here.upstream.asked) <= module.ROUNDS


@pytest.mark.parametrize("over_tcp", [False, True])
async def test_an_answer_that_would_take_long_to_read_is_not_read(over_tcp: bool) -> None:
    def swell(wire: bytes, room: int) -> bytes:
        said = dns.message.make_response(dns.message.from_wire(wire), recursion_available=True)
        if over_tcp and room < 65535:
            said.flags |= dns.flags.TC
            return said.to_wire()
        addresses = [f"51.1.1.{number}" for number in range(256)]
        said.answer = [dns.rrset.from_text("public.test.", 60, "IN", "A", *addresses)]
        return said.to_wire(max_size=65535)

    async with scene() as here:
        here.upstream.says = swell
        assert (await here.ask("public.test")).rcode() == dns.rcode.SERVFAIL


async def test_who_asked_first_and_gives_up_takes_the_answer_from_nobody() -> None:
    async with scene() as here:
        here.upstream.mute.set()
        asked, _ = here.resolver.quickly(dns.message.make_query("public.test", "A").to_wire())
        first, second = (
            asyncio.create_task(here.resolver.slowly(asked, f"10.0.0.{number}"))
            for number in range(2)
        )
        async with asyncio.timeout(30):
            while not here.upstream.asked:
                await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        here.upstream.release()
        said = await second
        assert said is not None
        assert dns.message.from_wire(said).answer
