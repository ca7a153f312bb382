"""apptracker: apps announce what they offer, others find it.

    apptracker [IP:PORT]

On the bus it answers `tracker.*`; with an address, also programs that are not on the bus.
Exit codes: 0 stopped, 2 wrong arguments, 9 address taken or not of this machine.
"""

import asyncio
import functools
import logging
import socket
import sys
import time
from typing import TypeVar

import msgspec

from apps.tracker import lines
from apps.tracker.door import BACKLOG, Door
from apps.tracker.registry import STRANGER, NotTaken, Registry
from bus import BusError, Refused, Request, logs, process
from bus.arguments import ArgumentParser
from bus.process import Participant
from bus.signals import PRESENCE, Presence, unpack
from nodes import api, listening, offers
from nodes.upkeep import run_until

log = logging.getLogger("tracker")

TICK = 1.0  # seconds
RETRY = 1.0  # seconds

_T = TypeVar("_T", bound=msgspec.Struct)


class Tracker:
    """One registry behind the bus and behind the TCP address."""

    def __init__(self) -> None:
        self._offers = Registry()

    async def announce(self, request: Request) -> bytes:
        told = _read(request, offers.Announcement)
        try:
            self._take(told, request.sender)
        except offers.BadOffer as error:
            raise Refused(400, "bad_offer", str(error)) from None
        except NotTaken as error:
            raise Refused(409 if error.name == "stale" else 503, error.name, str(error)) from None
        return api.pack(api.Empty())

    async def withdraw(self, request: Request) -> bytes:
        self._offers.withdraw(_read(request, offers.Place), request.sender)
        return api.pack(api.Empty())

    async def find(self, request: Request) -> bytes:
        search = _read(request, offers.Search)
        found, more = self._offers.find(search.type, search.after, time.time())
        return api.pack(offers.Found([announcement for announcement, _ in found], more))

    def answer(self, line: bytes) -> bytes:
        """A line of somebody who is not on the bus."""
        try:
            asked = lines.read(line)
            if asked.announce is None:
                found, more = self._offers.find(asked.find, asked.after, time.time())
                return lines.offers(found, more=more)
            self._take(asked.announce, STRANGER)
            return lines.done()
        except lines.BadLine as error:
            return lines.refused("bad_request", str(error))
        except offers.BadOffer as error:
            return lines.refused("bad_offer", str(error))
        except NotTaken as error:
            return lines.refused(error.name, str(error))

    async def tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._offers.expire(time.time())

    async def watch(self, participant: Participant) -> None:
        """What was announced by programs that have left the bus is shown no longer."""
        while True:
            try:
                async for message in await participant.bus.subscribe(f"{PRESENCE}.>"):
                    presence = unpack(message.body, Presence)
                    if presence.state == "offline":
                        self._offers.gone(presence.key)
            except BusError as error:  # the connection was lost just now
                log.info("not told who leaves: %s", error)
            await asyncio.sleep(RETRY)

    def _take(self, told: offers.Announcement, by: str) -> None:
        now = time.time()
        self._offers.put(told, offers.verified(told, now), by, now)


def _read(request: Request, kind: type[_T]) -> _T:
    try:
        return api.unpack(request.body, kind)
    except api.BadBody as error:
        raise Refused(400, "bad_request", str(error)) from None


async def main(participant: Participant, listener: socket.socket | None) -> int:
    tracker = Tracker()
    await participant.bus.serve(offers.ANNOUNCE, tracker.announce)
    await participant.bus.serve(offers.WITHDRAW, tracker.withdraw)
    await participant.bus.serve(offers.FIND, tracker.find)

    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(tracker.tick())
            tasks.create_task(tracker.watch(participant))
            if listener is not None:
                log.info("answers at %s:%d", *listener.getsockname()[:2])
                tasks.create_task(Door(tracker.answer).serve(listener))

    log.info("answers %s on the bus", offers.FIND)
    await run_until(participant.stopping, work())
    return 0


def parse(arguments: list[str]) -> listening.Address | None:
    first_line = (__doc__ or "").splitlines()[0]
    parser = ArgumentParser(prog="apptracker", description=first_line)
    parser.add_argument(
        "listen", nargs="?", type=listening.ip_port, metavar="IP:PORT", help="beside the bus"
    )
    found: listening.Address | None = parser.parse_args(arguments).listen
    return found


def start() -> None:
    """Take the port before joining the bus: who sees the tracker there can use it."""
    address = parse(sys.argv[1:])
    logs.configure()
    listener = None
    if address is not None:
        listener = listening.or_exit(address, lambda at: listening.tcp(at, BACKLOG))
    process.run(functools.partial(main, listener=listener))


if __name__ == "__main__":
    start()
