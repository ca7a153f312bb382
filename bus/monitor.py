"""The broker over HTTP on loopback: read-only pages for people, probes and Prometheus.

The pages are served by threads of their own. What a page tells, the broker's loop works out: a thread puts a
question into a bounded inbox, wakes the loop and waits at most `PATIENCE`; a loop that does not answer is
unhealthy. Whatever comes in over HTTP is hostile: time, size, connections and answers a second are
bounded, and the oldest connection gives way to the newest, so that idle ones keep no probe out. A
browser that was lured here by a name of somebody else's (DNS rebinding) is turned away by the Host header.
"""

from __future__ import annotations

import contextlib
import errno
import http.server
import io
import ipaddress
import queue
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from bus import signals
from bus.errors import BusError, EndpointTaken
from bus.routing.watching import Figures, Watching

PATIENCE = 2.0  # seconds that a page waits for the loop
SLOW = 1.0  # seconds; a loop that answers later than this is told as unhealthy
DEADLINE = (
    5.0  # seconds in which a request must have been read, and in which an answer must be taken
)
FRESH = 0.5  # seconds for which an answer is given again without asking the loop
MAX_HEAD = 16 << 10  # bytes of request line and headers
MAX_CONNECTIONS = 16  # the oldest gives way
MAX_THREADS = 64  # those that gave way may take a moment
MAX_ASKED = 16  # questions that wait for the loop
PACE = 0.01  # seconds between two connections: nobody can make the pages take the loop's processor
MAX_SESSIONS = 10_000  # of one page
JSON = "application/json"

Question = Callable[[Watching], Any]


class LoopSilentError(BusError):
    """The broker's loop did not answer in time."""


class Inbox:
    """Questions of other threads to the loop, which answers them in its own time."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._asked: queue.Queue[tuple[Question, Future[Any]]] = queue.Queue(MAX_ASKED)

    def ask(self, question: Question) -> Any:  # noqa: ANN401 - what the question gives
        """The loop's answer; `LoopSilentError` when it gives none within `PATIENCE`."""
        answer: Future[Any] = Future()
        try:
            self._asked.put_nowait((question, answer))
        except queue.Full:
            raise LoopSilentError("too many questions wait for the broker's loop") from None
        self._wake()
        try:
            return answer.result(PATIENCE)
        except TimeoutError:
            answer.cancel()
            problem = f"the broker's loop has not answered for {PATIENCE:g} s"
            raise LoopSilentError(problem) from None

    def answer(self, watching: Watching) -> None:
        """Called by the loop: answer what was asked, at most as much as fits in at once."""
        for _ in range(MAX_ASKED):
            try:
                question, answer = self._asked.get_nowait()
            except queue.Empty:
                return
            if not answer.set_running_or_notify_cancel():
                continue  # nobody waits for it any more
            try:
                answer.set_result(question(watching))
            except Exception as error:  # noqa: BLE001 - told to who asked; the loop goes on
                answer.set_exception(error)


class _Recent:
    """The last answer to one question, kept for `FRESH`: many readers cost the loop no more than one."""

    def __init__(self, inbox: Inbox, question: Question) -> None:
        self._inbox = inbox
        self._question = question
        self._lock = threading.Lock()
        self._until = 0.0
        self._answer: Any = None
        self._error: LoopSilentError | None = None
        self.seconds = 0.0  # that the loop took

    def get(self) -> Any:  # noqa: ANN401 - what the question gives
        with self._lock:
            start = time.monotonic()
            if start >= self._until:
                self._answer, self._error = None, None
                try:
                    self._answer = self._inbox.ask(self._question)
                except LoopSilentError as error:
                    self._error = error
                now = time.monotonic()
                self.seconds, self._until = now - start, now + FRESH
            if self._error is not None:
                raise LoopSilentError(str(self._error))
            return self._answer


@dataclass(frozen=True)
class Reply:
    """What a page answers."""

    status: HTTPStatus
    kind: str  # content type
    body: bytes


def _reply(value: object, status: HTTPStatus = HTTPStatus.OK) -> Reply:
    return Reply(status, JSON, msgspec.json.encode(value) + b"\n")


def _metrics(figures: Figures) -> Reply:
    from bus import metrics

    return Reply(HTTPStatus.OK, metrics.CONTENT_TYPE, metrics.text(figures).encode())


class Pages:
    """Path by path, what is told. `LoopSilentError` when the loop does not say it."""

    def __init__(self, inbox: Inbox) -> None:
        def recent(question: Question) -> _Recent:
            return _Recent(inbox, question)

        self._health = recent(Watching.health)
        self._sessions = recent(Watching.sessions)
        self._plain: dict[str, tuple[_Recent, Callable[[Any], Reply]]] = {
            "/varz": (recent(Watching.varz), _reply),
            "/closed": (recent(Watching.closed), _reply),
            "/services": (recent(Watching.services), _reply),
            "/topics": (recent(Watching.topics), _reply),
            "/metrics": (recent(Watching.figures), _metrics),
        }

    def get(self, target: str) -> Reply:
        """The page of a request's target."""
        path, _, query = target.partition("?")
        if path == "/":
            paths = ["/healthz", "/sessions", *self._plain]
            return Reply(HTTPStatus.OK, "text/plain", "".join(f"{p}\n" for p in paths).encode())
        if path == "/healthz":
            return self._healthz()
        if path == "/sessions":
            return self._page_of_sessions(query)
        if path not in self._plain:
            return _refusal(HTTPStatus.NOT_FOUND, "no such page; / lists them")
        answers, tell = self._plain[path]
        return tell(answers.get())

    def _healthz(self) -> Reply:
        """200 or 503, so that a probe need not read the body."""
        try:
            health: signals.Health = self._health.get()
        except LoopSilentError as error:
            health = signals.Health(ok=False, problems=[str(error)])
        if self._health.seconds > SLOW and health.ok:
            waited = f"the broker's loop took {self._health.seconds:.1f} s to answer"
            health = signals.Health(ok=False, problems=[waited])
        return _reply(health, HTTPStatus.OK if health.ok else HTTPStatus.SERVICE_UNAVAILABLE)

    def _page_of_sessions(self, query: str) -> Reply:
        """All sessions or those of `key`; `limit` of them from number `offset` on."""
        asked = dict(urllib.parse.parse_qsl(query))
        limit, offset = asked.get("limit", "1000"), asked.get("offset", "0")
        if not (_is_number(limit) and _is_number(offset) and int(limit) <= MAX_SESSIONS):
            problem = f"limit and offset are numbers, limit at most {MAX_SESSIONS}"
            return _refusal(HTTPStatus.BAD_REQUEST, problem)
        found: list[signals.SessionInfo] = self._sessions.get().sessions
        if "key" in asked:
            found = [info for info in found if info.key == asked["key"]]
        found = found[int(offset) :]
        page = found[: int(limit)]
        return _reply(signals.Sessions(page, len(found) - len(page)))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _refusal(status: HTTPStatus, problem: str) -> Reply:
    return _reply({"error": problem}, status)


class Monitor:
    """The HTTP server. The loop calls `inbox.answer` when it was woken, and `close` at the end."""

    def __init__(self, address: tuple[str, int], wake: Callable[[], None]) -> None:
        """Listen; `EndpointTaken`, or another `BusError`, when it cannot."""
        self.inbox = Inbox(wake)
        self._pages = Pages(self.inbox)
        self._open: dict[socket.socket, None] = {}  # connections, oldest first
        self._threads = 0
        self._lock = threading.Lock()
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            self._listener = socket.create_server(address, family=family, backlog=128)
        except OSError as error:
            where = f"{address[0]}:{address[1]}"
            kind = EndpointTaken if error.errno == errno.EADDRINUSE else BusError
            raise kind(f"monitor: cannot listen on {where}: {error.strerror}") from None
        self._thread = threading.Thread(target=self._accept, name="monitor", daemon=True)

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop listening; answers under way end with the process."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends accept(), which close() does not
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except ConnectionError:
                continue
            except OSError:
                if self._listener.fileno() < 0:
                    return
                time.sleep(0.1)  # out of descriptors; or closing, and then the next call tells
                continue
            self._admit(connection)
            time.sleep(PACE)

    def _admit(self, connection: socket.socket) -> None:
        with self._lock:
            if self._threads >= MAX_THREADS:
                connection.close()
                return
            if len(self._open) >= MAX_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread ends upon that
            self._open[connection] = None
            self._threads += 1
        thread = threading.Thread(target=self._converse, args=(connection,), daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left: the pages must outlive that
            self._over(connection)

    def _converse(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):  # they hung up, or were too slow
                _Handler(connection, self._pages)
        finally:
            self._over(connection)

    def _over(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.pop(connection, None)
            self._threads -= 1
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        connection.close()


class _Head(io.RawIOBase):
    """What a client says, up to `MAX_HEAD` bytes and for `DEADLINE` in all, however it is dribbled."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._until = time.monotonic() + DEADLINE
        self.left = MAX_HEAD

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - as the base has it
        if not self.left:
            return 0
        self._connection.settimeout(max(0.001, self._until - time.monotonic()))
        count = self._connection.recv_into(memoryview(buffer)[: self.left])
        self.left -= count
        return count


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request, one answer; the connection is closed after it."""

    protocol_version = "HTTP/1.0"

    def __init__(self, connection: socket.socket, pages: Pages) -> None:
        self._pages = pages
        self._head = _Head(connection)
        super().__init__(connection, ("", 0), None)  # type: ignore[arg-type] # no server of its own

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(self._head)

    def version_string(self) -> str:
        return "viscript"

    def log_message(self, *_: object) -> None:
        """Say nothing: a client must not fill the log."""

    def send_error(self, code: int, message: str | None = None, _more: str | None = None) -> None:
        """Called by the base for what it cannot parse, and for methods that are not here."""
        status = HTTPStatus(code)
        if status is HTTPStatus.NOT_IMPLEMENTED:
            self._send(_refusal(HTTPStatus.METHOD_NOT_ALLOWED, "pages are read with GET or HEAD"))
        else:
            self._send(_refusal(status, message or status.phrase))

    def do_GET(self) -> None:
        self._send(self._answer())

    def do_HEAD(self) -> None:
        self._send(self._answer())

    def _answer(self) -> Reply:
        if not self._head.left:
            problem = f"request line and headers are at most {MAX_HEAD} bytes"
            return _refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, problem)
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not _is_local(hosts[0]):
            problem = "the Host header must name this machine: 127.0.0.1, [::1] or localhost"
            return _refusal(HTTPStatus.FORBIDDEN, problem)
        try:
            return self._pages.get(self.path)
        except LoopSilentError as error:
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except Exception as error:  # noqa: BLE001 - a page's failure is the page's answer
            problem = f"this page failed: {type(error).__name__}"
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, problem)

    def _send(self, reply: Reply) -> None:
        self.close_connection = True
        self.request_version = (
            self.protocol_version
        )  # to what looks like HTTP/0.9 as well: a status
        self.connection.settimeout(DEADLINE)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if reply.status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)


def _is_local(host: str) -> bool:
    """Whether a Host header names this machine; any port, as it may have come through a tunnel."""
    name = host.strip().lower()
    head, colon, port = name.rpartition(":")
    if colon and port.isdigit() and port.isascii():
        name = head
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name[1:-1] if name[:1] == "[" else name).is_loopback
    except ValueError:
        return False
