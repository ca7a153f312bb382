"""Servers to fetch from: a web server with a page, a file and a slow stream; one that counts."""

import contextlib
import hashlib
import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

PAGE = b"<h1>It works</h1>\n"
SLOW_LINES, SLOW_PAUSE = 5, 0.3  # seconds
FILE_SIZE = 64 * 2**20


@dataclass(frozen=True)
class Web:
    """A running web server."""

    port: int
    digest: str  # SHA-256 of /random


class _Handler(http.server.BaseHTTPRequestHandler):
    file = b""

    def do_GET(self) -> None:
        match self.path:
            case "/":
                self._send(PAGE)
            case "/random":
                self._send(self.file)
            case "/slow":
                self._head(None)
                for number in range(SLOW_LINES):
                    self.wfile.write(f"line {number}\n".encode())
                    time.sleep(SLOW_PAUSE)
            case "/endless":
                self._head(None)
                with contextlib.suppress(OSError):
                    while True:
                        self.wfile.write(bytes(65536))
                        time.sleep(0.01)
            case _:
                self.send_error(404)

    def _send(self, body: bytes) -> None:
        self._head(len(body))
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def _head(self, length: int | None) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_request(self, *_: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True
    block_on_close = False


@contextlib.contextmanager
def web_server(host: str = "127.0.0.1") -> Iterator[Web]:
    body = os.urandom(FILE_SIZE)
    with _Server((host, 0), type("Handler", (_Handler,), {"file": body})) as server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        yield Web(server.server_address[1], hashlib.sha256(body).hexdigest())
        server.shutdown()


@contextlib.contextmanager
def counting_server(host: str = "127.0.0.1") -> Iterator[int]:
    """Read a connection to its end, answer how many bytes came, and close."""

    def answer(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            count = 0
            while data := client.recv(65536):
                count += len(data)
            client.sendall(str(count).encode())

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                threading.Thread(target=answer, args=(client,), daemon=True).start()

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
