"""What the daemon tells the `up` that has started it."""

import asyncio
import fcntl
import os

from viscript.protocol import Event
from viscript.spawning import events
from viscript.telling import MAX_LEFT, Teller


def test_what_the_pipe_does_not_take_at_once_comes_later_whole_and_in_order() -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    told = [Event("notice", text=f"{number} " + "x" * 3000) for number in range(20)]

    async def main() -> list[Event]:
        teller = Teller(write)
        for event in told:
            teller.tell(event)
        heard = events(read)
        found: list[Event] = []
        while len(found) < len(told):
            await asyncio.sleep(0)
            event = await asyncio.to_thread(next, heard)
            found += [event] if event is not None else []
        return found

    assert asyncio.run(main()) == told
    os.close(read)
    os.close(write)


def test_who_never_reads_costs_a_bounded_amount_of_memory_and_still_hears_the_end() -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    teller = Teller(write)
    for _ in range(3000):
        teller.tell(Event("launch", app="x" * 1000))
    assert len(teller._left) < MAX_LEFT + 2000
    teller.tell(Event("up"))
    assert bytes(teller._left).endswith(b'{"kind":"up"}\n')
    os.close(read)
    os.close(write)


def test_who_has_gone_is_told_no_more() -> None:
    read, write = os.pipe()
    teller = Teller(write)
    os.close(read)
    teller.tell(Event("up"))
    assert teller.fd is None
    teller.tell(Event("up"))
