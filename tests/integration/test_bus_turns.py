"""The real broker's loop inside this process: turned by hand, or with heartbeats that are short."""

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from bus import broker as brokers
from bus.routing import router, sessions
from tests.support.broker import Broker
from tests.support.raw import (
    DELIVERY,
    ERROR,
    HELLO,
    OK,
    PING,
    PONG,
    REQUEST,
    REQUEST_DELIVERY,
    SERVE,
    SUBSCRIBE,
    Raw,
)


@contextmanager
def dialled(broker: Broker, name: str, options: dict[int, int] | None = None) -> Iterator[Raw]:
    with Raw(broker.address, broker.keys[name], options=options) as raw:
        yield raw


def inside(files: Broker) -> brokers.Broker:
    """Give the broker as an object of this process, not running."""
    folder = files.folder
    paths = brokers.BrokerFiles(
        files.address.endpoint, folder / "broker.key", folder / "access.json"
    )
    return brokers.Broker(paths, lambda _what, _fields: None)


def test_a_will_is_published_when_its_owner_falls_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker is in this process, so that a heartbeat takes a fraction of a second."""
    for module in (router, sessions):
        monkeypatch.setattr(module, "HEARTBEAT", 0.3)
    files = Broker(tmp_path, alice="app", mortal="app")
    own = inside(files)
    thread = threading.Thread(target=own.run)
    thread.start()
    try:
        with dialled(files, "alice") as alice, dialled(files, "mortal") as mortal:
            assert alice.hello()["hb"] == 300
            alice.send(SUBSCRIBE, {"id": 1, "sid": 1, "s": "app.gone"})
            alice.hear_only(OK)
            mortal.send(HELLO, {"will": "app.gone"}, b"silence")
            mortal.hear()
            code = PONG
            while code == PONG:
                alice.send(PING)
                code, fields, body = alice.hear()
                time.sleep(0.1)
            assert (code, fields["from"], body) == (
                DELIVERY, files.keys["mortal"].public, b"silence",
            )  # fmt: skip
            assert own.router.presence.closed[0].num == 408
    finally:
        own.stop()
        thread.join()


def test_a_session_whose_connection_was_lost_before_it_began_does_not_stay(tmp_path: Path) -> None:
    """The broker is turned by hand, so that it hears of the loss before it reads the HELLO."""
    files = Broker(tmp_path, hasty="app")
    own = inside(files)

    def turn(seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            own._turn(own._wait(0.01))

    with contextlib.ExitStack() as cleanup:
        cleanup.callback(own._context.destroy, linger=0)
        for _ in range(10):
            with dialled(files, "hasty", {zmq.LINGER: 500}) as hasty:
                turn(0.1)  # the handshake
                hasty.event(zmq.EVENT_HANDSHAKE_SUCCEEDED)
                hasty.send(HELLO)
                hasty.hang_up()
            time.sleep(0.05)
            before = own.router.sessions._numbers.__reduce__()[1][0]
            turn(0.1)
            assert own.router.sessions._numbers.__reduce__()[1][0] == before + 1, "it was met"
            assert len(own.router.sessions) == 0


def test_deadlines_are_kept_though_there_is_always_something_to_read(tmp_path: Path) -> None:
    """The broker is turned by hand, and never comes to rest."""
    files = Broker(tmp_path, alice="app")
    own = inside(files)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(own._context.destroy, linger=0)
        alice = cleanup.enter_context(dialled(files, "alice"))
        alice.send(HELLO)
        while not alice.socket.poll(0):
            own._turn(own._wait(own._pause()))
        alice.hear()
        alice.send(SERVE, {"id": 1, "s": "app.silence"})
        alice.send(REQUEST, {"id": 2, "s": "app.silence", "dl": 100})
        own._pause()
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            own._turn({own._zap_fd, own._monitor_fd})
        assert alice.hear()[0] == OK
        assert alice.hear()[0] == REQUEST_DELIVERY
        assert alice.hear_only(ERROR)["err"] == "deadline"
