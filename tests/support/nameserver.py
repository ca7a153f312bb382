"""A DNS server that answers as a test tells it to: UDP and TCP on one port of 127.0.0.1."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

# Given a question, what goes back: nothing, or messages as they are on the wire.
Script = Callable[[dns.message.Message], list[bytes]]


class NameServer(asyncio.DatagramProtocol):
    """`zone` has records by name; `script` is asked before it and may answer otherwise."""

    def __init__(self, zone: dict[str, list[str]], script: Script | None = None) -> None:
        self.zone = zone
        self.script = script
        self.over_tcp: Script | None = None
        self.asked: list[str] = []  # "name family", each question
        self.place = ("127.0.0.1", 0)
        self._transport: asyncio.DatagramTransport

    def answer(self, question: dns.message.Message) -> bytes:
        """What the zone says."""
        about = question.question[0]
        family = about.to_text().split()[-1]
        name = about.name.to_text(omit_final_dot=True)
        reply = dns.message.make_response(question, recursion_available=True)
        lines = [line.split() for line in self.zone.get(name, [])]
        found = [words[2] for words in lines if words[1] == family]
        if found:
            ttl = int(lines[0][0])
            reply.answer.append(dns.rrset.from_text_list(about.name, ttl, "IN", family, found))
        else:
            soa = ["test.", "60", "IN", "SOA", "ns.test. me.test. 1 2 3 4 60"]
            reply.authority.append(dns.rrset.from_text(soa[0], 60, "IN", "SOA", soa[4]))
            if not lines:
                reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire(max_size=65_535)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        self.place = transport.get_extra_info("sockname")

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        for reply in self._replies(data, self.script):
            self._transport.sendto(reply, source)

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            for reply in self._replies(data, self.over_tcp):
                writer.write(len(reply).to_bytes(2) + reply)
            await writer.drain()
        writer.close()

    def _replies(self, data: bytes, script: Script | None) -> list[bytes]:
        question = dns.message.from_wire(data)
        self.asked.append(question.question[0].to_text().replace(". IN", ""))
        return [self.answer(question)] if script is None else script(question)


@contextlib.asynccontextmanager
async def nameserver(
    zone: dict[str, list[str]], script: Script | None = None
) -> AsyncIterator[NameServer]:
    server = NameServer(zone, script)
    listener = await asyncio.start_server(server.stream, "127.0.0.1", 0)
    transport = await _same_port(server, listener)
    while transport is None:
        listener.close()
        await listener.wait_closed()
        listener = await asyncio.start_server(server.stream, "127.0.0.1", 0)
        transport = await _same_port(server, listener)
    try:
        yield server
    finally:
        transport.close()
        listener.close()
        await listener.wait_closed()


async def _same_port(
    server: NameServer, listener: asyncio.Server
) -> asyncio.DatagramTransport | None:
    """The port of the listener for datagrams, too; None when somebody has it."""
    place = listener.sockets[0].getsockname()
    loop = asyncio.get_running_loop()
    try:
        transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=place)
    except OSError:
        return None
    return transport
