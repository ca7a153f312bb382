"""The tracker's TCP address: who comes there has proved nothing, so little is kept for anybody."""

import asyncio
import socket
from collections.abc import Callable

from apps.tracker.lines import MAX_LINE

MAX_VISITORS = 64
PATIENCE = 30.0  # seconds for a line, and for taking the answer
BACKLOG = 64


class Door:
    """Answers lines by `answer`."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self._visitors = 0

    async def serve(self, listener: socket.socket) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:

            def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                tasks.create_task(self._welcome(reader, writer))

            server = await asyncio.start_server(arrived, sock=listener, limit=MAX_LINE)
            async with server:
                await server.serve_forever()

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._visitors += 1
        try:
            if self._visitors <= MAX_VISITORS:
                await self._converse(reader, writer)
        except (OSError, TimeoutError, ValueError):
            pass  # gone, asleep, or a line that is too long: closed without a word
        finally:
            self._visitors -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(PATIENCE):
                line = await reader.readline()
                if not line.endswith(b"\n"):
                    return
                writer.write(self._answer(line))
                await writer.drain()
            await asyncio.sleep(0)  # who sends many lines at once leaves the others their turn
