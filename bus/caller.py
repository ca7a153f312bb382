"""The blocking client: for command lines, which start, ask and end. No asyncio, few imports."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NoReturn, Self

from bus import sockets, subjects, wire
from bus.egress import of_bus
from bus.errors import BusError, LocalProtocolError, NotAuthorised, RemoteProtocolError, Unreachable
from bus.identity import Address, KeyPair
from bus.session import ClientSession
from bus.waiting import Settled, SettledTogether

MAX_MESSAGE = 2 << 20


class Caller:
    """One short session: `with Caller(address, keypair) as caller: caller.request(…)`.

    Entering raises `NotAuthorised` when the key is not allowed, `Unreachable` when no broker answers
    within `timeout` seconds.
    """

    def __init__(
        self, address: Address, keypair: KeyPair, *, name: str = "", timeout: float = 5.0
    ) -> None:
        self.address = address
        self.key = keypair.public
        self._keypair = keypair
        self._timeout = timeout
        self._session = ClientSession(name)
        self._context = sockets.new_context(egress=of_bus(address.endpoint))
        self._over = False  # the connection has ended: nothing more will come

    def __enter__(self) -> Self:
        try:
            self._socket, self._monitor = sockets.dial(
                self._context, self._keypair, self.address, max_message=MAX_MESSAGE
            )
            self._session.opened(time.monotonic())
            deadline = time.monotonic() + self._timeout
            while self._session.welcome is None:
                if time.monotonic() >= deadline:
                    raise Unreachable(f"no broker answers at {self.address.endpoint}")
                self._turn(deadline)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._session.bye("done")
        self._write()
        time.sleep(0.002)  # LINGER is 0: give the goodbye time to leave
        self._socket.disable_monitor()
        self._context.destroy(linger=0)

    def request(
        self, subject: str, body: bytes = b"", *, to: str | None = None, timeout: float = 5.0
    ) -> bytes:
        """Ask and wait for the answer's body; errors as `bus.client.Bus.request`."""
        if not subjects.is_subject(subject):
            raise LocalProtocolError(f"not a subject: {subject!r}")
        ref = self._session.request(subject, body, to, timeout, time.monotonic())
        while True:
            due = time.monotonic() + self._session.next_timer(time.monotonic())
            for settled in [*self._turn(due), *self._session.handle_timer(time.monotonic())]:
                if settled.id == ref:
                    if settled.error is not None:
                        raise settled.error
                    return settled.body

    def request_all(
        self, subject: str, to: Mapping[str, bytes], *, timeout: float = 5.0
    ) -> dict[str, bytes | BusError]:
        """Ask several participants at once, `to` their keys: the answer of each, or why there is none."""
        if not subjects.is_subject(subject):
            raise LocalProtocolError(f"not a subject: {subject!r}")
        now = time.monotonic()
        asked = {
            self._session.request(subject, body, key, timeout, now): key for key, body in to.items()
        }
        answers: dict[str, bytes | BusError] = {}
        while asked:
            due = time.monotonic() + self._session.next_timer(time.monotonic())
            for settled in [*self._turn(due), *self._session.handle_timer(time.monotonic())]:
                if settled.id in asked:
                    answer = settled.body if settled.error is None else settled.error
                    answers[asked.pop(settled.id)] = answer
        return answers

    def _turn(self, deadline: float) -> list[Settled]:
        """Send, wait until something arrives or `deadline`, return what came to its end."""
        if self._over:
            self._lost()
        self._write()
        sockets.wait([self._socket, self._monitor], deadline - time.monotonic())
        settled = self._read()
        for event in sockets.events(self._monitor):
            if event.kind == sockets.HANDSHAKE_REFUSED:
                raise NotAuthorised(
                    f"the broker at {self.address.endpoint} does not allow the key {self.key}"
                )
            if event.kind & (sockets.DISCONNECTED | sockets.CLOSED | sockets.HANDSHAKE_FAILED):
                self._over = True  # also for later requests, when there is an answer to this one
        if self._over:
            settled += self._read()
        if self._over and not settled:
            self._lost()
        return settled

    def _lost(self) -> NoReturn:
        farewell, refusal = self._session.farewell, self._session.refusal
        if isinstance(refusal, NotAuthorised):
            raise refusal
        problem = f"no broker answers at {self.address.endpoint}"
        raise Unreachable(farewell.reason if farewell else str(refusal or problem))

    def _read(self) -> list[Settled]:
        settled = []
        while sockets.readable(self._socket):
            head, *rest = self._socket.recv_multipart(sockets.DONTWAIT)
            try:
                for inner, body in self._session.messages(head, rest[0] if rest else b""):
                    settled += self._hear(inner, body or b"")
            except RemoteProtocolError as error:
                raise Unreachable(
                    f"{self.address.endpoint} does not speak SB/1: {error}"
                ) from error
        return settled

    def _hear(self, head: bytes, body: bytes) -> list[Settled]:
        event = self._session.receive(head, body, time.monotonic())
        if isinstance(event, wire.Error) and self._session.welcome is not None:
            raise BusError(f"the broker refused: {event.msg}")
        if isinstance(event, SettledTogether):
            return event.each
        return [event] if isinstance(event, Settled) else []

    def _write(self) -> None:
        while (outgoing := self._session.next) is not None:
            frames = [outgoing.head] if outgoing.body is None else [outgoing.head, outgoing.body]
            try:
                self._socket.send_multipart(frames, sockets.DONTWAIT)
            except sockets.Again:
                return
            self._session.sent(time.monotonic())
