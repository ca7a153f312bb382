"""A program on the bus: one import, one call. It answers ping, ru and sd, and publishes a tick.

In config.yaml (python is the one that has viscript installed):

    apps:
      ticker:
        daemon: false
        desc: publishes the time
        path: /path/to/python
        default_args: [-P, /path/to/signal_client.py]
        help: SECONDS between two ticks
        ready: bus

Then `viscript s ticker 2`, `viscript ping ID`, `viscript ru ID`, `viscript sd ID`.
"""

import asyncio
import contextlib
import sys
import time

from bus import process


async def main(participant: process.Participant) -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    while not participant.stopping.is_set():
        await participant.bus.publish("app.ticker.tick", str(time.time()).encode())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(participant.stopping.wait(), seconds)


if __name__ == "__main__":
    process.run(main)
