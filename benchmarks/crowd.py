"""Many quiet participants in few processes: they say HELLO, keep their sessions alive and come back.

One process holds hundreds of real connections over one ZeroMQ context, each with the protocol core that the
shipped clients use (`bus.session`). Commands on standard input, one JSON line each on standard output:
`up` waits until all are in session, `back` until all are in session of another start of the broker.
"""

from __future__ import annotations

import json
import random
import resource
import select
import sys
import threading
import time
from pathlib import Path

sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).parent]
sys.path.append(str(Path(__file__).parents[1]))

from bus import Address, KeyPair, keystore, sockets  # noqa: E402
from bus.errors import BusError  # noqa: E402
from bus.session import ClientSession  # noqa: E402

MAX_MESSAGE = 2 << 20
PAUSE = (0.05, 0.3)  # seconds before another attempt


class Member:
    """One participant: a connection at a time, and the session over all of them."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.session = ClientSession("crowd")
        self.epoch = 0
        self.retry = 0.0
        self.timer = 0.0
        self.socket: sockets.Socket | None = None
        self.monitor: sockets.Socket | None = None

    def dial(self) -> None:
        self.socket, self.monitor = sockets.dial(
            self.crowd.context, self.crowd.keypair, self.crowd.address, max_message=MAX_MESSAGE
        )
        for socket in (self.socket, self.monitor):
            descriptor = sockets.descriptor(socket)
            self.crowd.members[descriptor] = self
            self.crowd.poll.register(descriptor, select.POLLIN)
        self.session.opened(time.monotonic())
        self.turn()

    def turn(self) -> None:
        if self.socket is None or self.monitor is None:
            return
        self.write()
        now = time.monotonic()
        while sockets.readable(self.socket):
            head, *body = self.socket.recv_multipart(sockets.DONTWAIT)
            for inner, content in self.session.messages(head, body[0] if body else b""):
                self.session.receive(inner, content or b"", now)
        self.write()
        if self.session.welcome is not None:
            self.epoch = self.session.welcome.epoch
        over = sockets.DISCONNECTED | sockets.CLOSED | sockets.HANDSHAKE_FAILED
        if any(event.kind & over for event in sockets.events(self.monitor)):
            self.lost(now)
            return
        self.timer = now + self.session.next_timer(now)

    def write(self) -> None:
        assert self.socket is not None
        while (outgoing := self.session.next) is not None:
            try:
                self.socket.send(outgoing.head, sockets.DONTWAIT)
            except sockets.Again:
                return
            self.session.sent(time.monotonic())

    def tick(self, now: float) -> None:
        if self.socket is None:
            if now >= self.retry:
                self.dial()
        elif now >= self.timer:
            try:
                self.session.handle_timer(now)
            except BusError:
                self.lost(now)
            self.turn()

    def lost(self, now: float) -> None:
        assert self.socket is not None
        assert self.monitor is not None
        for socket in (self.socket, self.monitor):
            descriptor = sockets.descriptor(socket)
            self.crowd.poll.unregister(descriptor)
            del self.crowd.members[descriptor]
        sockets.close(self.socket)
        self.monitor.close(linger=0)
        self.socket = self.monitor = None
        self.epoch = 0
        self.session.lost("lost")
        self.retry = now + random.uniform(*PAUSE)


class Crowd:
    def __init__(self, address: Address, keypair: KeyPair, count: int) -> None:
        self.address, self.keypair = address, keypair
        self.context = sockets.new_context()
        self.context.set(sockets.MAX_SOCKETS, 4 * count + 16)
        self.poll = select.poll()
        self.members: dict[int, Member] = {}  # by descriptor
        self.all = [Member(self) for _ in range(count)]
        self.wanted: tuple[str, int] | None = None  # the command, and the epoch it is about
        self.running = True

    def run(self) -> None:
        swept = 0.0
        while self.running:
            for descriptor, _ in self.poll.poll(50):
                member = self.members.get(descriptor)
                if member is not None:
                    member.turn()
            now = time.monotonic()
            if now - swept >= 0.05:
                swept = now
                for member in self.all:
                    member.tick(now)
                self.report()

    def report(self) -> None:
        """Answer the command once all of them are there."""
        if self.wanted is None:
            return
        _, epoch = self.wanted
        if all(m.epoch not in (0, epoch) for m in self.all):
            self.wanted = None
            print(json.dumps({"at": time.monotonic(), "epoch": self.all[0].epoch}), flush=True)


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    job = json.loads(sys.stdin.readline())
    keypair = keystore.load(Path(job["key_file"]))
    crowd = Crowd(Address(job["endpoint"], job["key"]), keypair, job["members"])

    def listen() -> None:
        for line in sys.stdin:
            command = json.loads(line)
            crowd.wanted = (command["do"], command.get("epoch", 0))
        crowd.running = False

    threading.Thread(target=listen, daemon=True).start()
    crowd.run()


if __name__ == "__main__":
    main()
