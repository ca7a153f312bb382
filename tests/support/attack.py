"""A broker under attack: a bystander who must not notice, and a bound that its memory must keep."""

import contextlib
import json
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psutil
import zmq

from bus import Address, KeyPair
from tests.support.broker import Broker, running_broker
from tests.support.raw import DELIVERY, ERROR, GOODBYE, OK, PUBLISH, SUBSCRIBE, Raw, dealer

MIB = 1 << 20
ROOT = Path(__file__).parents[2]


@contextmanager
def bystander(**roles: str) -> Iterator[tuple[Broker, Raw]]:
    """Run a broker; `alice`, who is in session before anything is done to it, must be served as ever."""
    with (
        running_broker(**roles) as broker,
        Raw(broker.address, broker.keys["alice"]) as alice,
    ):
        alice.hello()
        alice.send(SUBSCRIBE, {"id": 1, "sid": 1, "s": "topic.calm"})
        alice.hear_only(OK)
        yield broker, alice
        assert broker.running, broker.log
        assert "Traceback" not in broker.log
        assert undisturbed(broker, alice)


@contextmanager
def attack(bound: int, **roles: str) -> Iterator[tuple[Broker, Raw]]:
    """Run a broker that admits `mallory`; its memory must not grow by `bound` bytes at any moment.

    `alice`, the bystander, is an operator.
    """
    with bystander(alice="operator", mallory="app", **roles) as (broker, alice):
        before = broker.rss
        yield broker, alice
        assert broker.running, broker.log
        assert broker.peak_rss - before < bound


def undisturbed(broker: Broker, alice: Raw) -> bool:
    """Whether the bystander still gets what is published, and nothing else."""
    alice.send(PUBLISH, {"s": "topic.calm"}, b"still here")
    heard = alice.hear()
    own = broker.keys["alice"].public
    return heard == (DELIVERY, {"sid": 1, "s": "topic.calm", "from": own}, b"still here")


def mallory(broker: Broker) -> Raw:
    """Connect as the attacker, so that what was heard can still be read after the cut.

    With reconnecting off, libzmq drops with the connection what was not read yet.
    """
    return Raw(broker.address, broker.keys["mallory"], options={zmq.RECONNECT_IVL: 60_000})


def told_and_cut(raw: Raw, num: int, err: str) -> bool:
    """Whether an offender in session hears ERROR and GOODBYE and is cut."""
    error = raw.hear_only(ERROR)
    assert (error["num"], error["err"]) == (num, err), error
    assert raw.hear_only(GOODBYE)["num"] == num
    return raw.is_cut()


def descriptors(broker: Broker) -> int:
    assert broker.process is not None
    return int(psutil.Process(broker.process.pid).num_fds())


class Crowd:
    """Many connections of one key in one context, which say nothing by themselves."""

    def __init__(self, address: Address, pair: KeyPair, count: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.setsockopt(zmq.MAX_SOCKETS, 4 * count + 64)
        self.sockets: list[zmq.Socket[bytes]] = []
        for _ in range(count):
            self.sockets.append(dealer(self._context, address, pair, b""))
            self.sockets[-1].connect(address.endpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)


class Wire:
    """A relay in front of a broker, which can be cut in the middle: both ends stay open, nothing passes."""

    def __init__(self, address: Address) -> None:
        host, _, port = address.endpoint.removeprefix("tcp://").rpartition(":")
        self._broker = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._dead = threading.Event()
        self._over = threading.Event()
        near = self._listener.getsockname()[1]
        self.address = Address(f"tcp://127.0.0.1:{near}", address.key)
        self._thread = threading.Thread(target=self._relay)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for end in (self._listener, *self._peers):
            end.close()

    def break_silently(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._dead.set()

    def _relay(self) -> None:
        while not self._over.is_set():
            if self._dead.is_set():
                self._over.wait()
                return
            for ready in select.select([self._listener, *self._peers], [], [], 0.05)[0]:
                if ready is self._listener:
                    self._join()
                elif ready in self._peers:
                    self._pass_on(ready)

    def _join(self) -> None:
        near, far = self._listener.accept()[0], socket.create_connection(self._broker)
        self._peers[near], self._peers[far] = far, near

    def _pass_on(self, end: socket.socket) -> None:
        said = b""
        with contextlib.suppress(ConnectionResetError):
            said = end.recv(65536)
        if said:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._peers[end].sendall(said)
            return
        for closed in (end, self._peers.pop(end)):
            self._peers.pop(closed, None)
            closed.close()


READER = """
import json, sys
from bus import Address, KeyPair
from tests.support.raw import DELIVERY, GAP, OK, SUBSCRIBE, Raw

endpoint, key, public, secret, subject, count = json.loads(sys.stdin.readline())
with Raw(Address(endpoint, key), KeyPair(public, secret)) as raw:
    raw.hello()
    raw.send(SUBSCRIBE, {"id": 1, "sid": 9, "s": subject})
    raw.hear_only(OK)
    print("reading", flush=True)
    heard = lost = 0
    while heard + lost < count:
        code, fields, _ = raw.hear(40)
        assert code in (DELIVERY, GAP), hex(code)
        heard, lost = heard + (code == DELIVERY), lost + fields.get("lost", 0)
    print(json.dumps([heard, lost]), flush=True)
"""


@contextmanager
def reader(
    broker: Broker, name: str, subject: str, count: int
) -> Iterator[subprocess.Popen[bytes]]:
    """A subscriber in a process of its own; it prints what it heard and lost once that is `count`."""
    pair = broker.keys[name]
    address = broker.address
    job = [address.endpoint, address.key, pair.public, pair.secret, subject, count]
    process = subprocess.Popen(
        [sys.executable, "-c", READER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"reading\n"
        yield process
    finally:
        process.kill()
        process.communicate()
