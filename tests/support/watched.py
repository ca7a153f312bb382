"""A broker that shows its pages over HTTP, and a client that asks them as it should or should not."""

import http.client
import json
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bus.settings import load, save
from tests.support.broker import Broker

EVERY_PAGE = ["/healthz", "/varz", "/sessions", "/closed", "/services", "/topics", "/metrics", "/"]


@dataclass(frozen=True)
class Pages:
    """Where the pages are."""

    host: str
    port: int

    def ask(
        self, path: str, method: str = "GET", *, timeout: float = 10, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Give the answer and its body."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """Give what a page of JSON tells."""
        response, body = self.ask(path)
        assert response.status == 200, (response.status, body)
        assert response.headers["Content-Type"] == "application/json"
        return json.loads(body)

    def text(self, path: str) -> str:
        response, body = self.ask(path)
        assert response.status == 200, (response.status, body)
        return body.decode()

    def dial(self, timeout: float = 10) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout)

    def say(self, said: bytes) -> bytes:
        """Send bytes and give all that comes back until the other side hangs up."""
        with self.dial() as tcp:
            tcp.sendall(said)
            return hear_out(tcp)


def hear_out(tcp: socket.socket) -> bytes:
    """Read to the end, however it comes."""
    heard = b""
    try:
        while more := tcp.recv(65536):
            heard += more
    except ConnectionResetError:
        pass
    return heard


@contextmanager
def watched_broker(**roles: str) -> Iterator[tuple[Broker, Pages]]:
    """Run a broker with its pages on a free port."""
    with tempfile.TemporaryDirectory(prefix="bus-") as folder:
        broker = Broker(Path(folder), **roles)
        show_pages(broker, "127.0.0.1:0")
        try:
            broker.start()
            yield broker, pages_of(broker)
        finally:
            if broker.process is not None:
                broker.stop()


def show_pages(broker: Broker, address: str) -> None:
    path = broker.folder / "broker.json"
    save(path, msgspec.structs.replace(load(path), monitor=address))


def pages_of(broker: Broker) -> Pages:
    """Where the log says that they are."""
    found = re.findall(r"monitor=http://(\S+):(\d+)", broker.log)
    assert found, broker.log
    return Pages(found[-1][0].strip("[]"), int(found[-1][1]))
