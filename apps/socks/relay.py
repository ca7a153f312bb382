"""Datagrams at the exit: associations by who made them, and the one port of the node they all use."""

import asyncio
import contextlib
from collections import Counter
from typing import Final

from apps.egress.ledger import Account, Ledger
from apps.socks.dial import Gate
from apps.socks.messages import Associated, Association, encode
from apps.socks.packets import Packet, read_packet, write_packet
from apps.socks.relayed import Relayed
from nodes.client import DatagramPort, Incoming, NodeError, Stream, StreamReset

TICK: Final = 1.0  # seconds between two looks at who was silent
PER_TURN: Final = 16  # datagrams of the near sides, before others have their turn
LARGEST: Final = 59_000  # bytes of an answer; the mesh takes little more with the head

Whose = tuple[str, int, int]  # node's key, its port, the number


class Relay:
    """All associations of one exit, on one datagram port of its node."""

    def __init__(self, gate: Gate, ledger: Ledger, port: DatagramPort, idle: float) -> None:
        self._gate = gate
        self._ledger = ledger
        self._port = port
        self._idle = idle  # seconds without a datagram; 0: for ever
        self._associations: dict[Whose, Relayed] = {}
        self._gone: Counter[str] = Counter()  # dropped of those that are over

    @property
    def dropped(self) -> Counter[str]:
        """What was not passed on, by reason."""
        return sum((each.dropped for each in self._associations.values()), self._gone)

    async def pass_on(self) -> None:
        """Send what the near sides want sent, until the node is lost: raises NodeLost."""
        turn = 0
        async for came in self._port:
            turn += 1
            if turn % PER_TURN == 0:
                await asyncio.sleep(0)  # a flood leaves nobody else waiting
            packet = read_packet(came.data)
            if packet is None:
                self._gone["garbage"] += 1
                continue
            relayed = self._associations.get((came.origin, came.port, packet.number))
            if relayed is None:
                self._gone["no_association"] += 1
            else:
                relayed.send(packet)

    async def serve(self, incoming: Incoming, asked: Association, account: Account) -> None:
        """One association, as long as its stream, or until it is silent for too long."""
        whose = incoming.origin, asked.port, asked.number

        async def back(packet: Packet) -> None:
            if len(packet.data) > LARGEST:
                self._gone["too_large"] += 1
                return
            with contextlib.suppress(NodeError):
                await self._port.send_to(incoming.origin, asked.port, write_packet(packet))

        old = self._associations.pop(whose, None)
        if old is not None:  # the near side uses a number again: what it was is over
            self._end(old)
        relayed = Relayed(asked.number, self._gate, account, back)
        self._associations[whose] = relayed
        try:
            stream = await incoming.accept(encode(Associated(self._port.port)))
            await self._until_over(stream, relayed)
        finally:
            if self._associations.get(whose) is relayed:
                del self._associations[whose]
                self._end(relayed)

    async def _until_over(self, stream: Stream, relayed: Relayed) -> None:
        """Nothing comes over the stream but its end; who says something all the same is at its end, too."""
        loop = asyncio.get_running_loop()
        try:
            over = asyncio.create_task(_end_of(stream))
            while not over.done():
                await asyncio.wait({over}, timeout=TICK)
                if self._idle and loop.time() >= relayed.last + self._idle:
                    break
        finally:
            over.cancel()
            await stream.reset()

    def _end(self, relayed: Relayed) -> None:
        self._gone += relayed.dropped
        relayed.close()


async def _end_of(stream: Stream) -> None:
    with contextlib.suppress(StreamReset, NodeError):
        await stream.read(1)
