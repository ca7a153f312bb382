"""What a participant answers: services that the broker knows of, requests and signals to its own key."""

from __future__ import annotations

import logging
import os

from bus import services, subjects
from bus.answers import Answers, Endpoint, Request, RequestHandler, SignalHandler
from bus.calls import Calls
from bus.errors import LocalProtocolError, NotAuthorised

log = logging.getLogger(__name__)


class Answering:
    """The part of `Bus` that others ask."""

    _calls: Calls
    _answers: Answers
    _discoverable: bool | None = None  # None: not tried yet

    async def serve(
        self,
        subject: str,
        handler: RequestHandler,
        *,
        name: str = "",
        version: str = "",
        description: str = "",
        inflight: int = 0,
    ) -> None:
        """Answer requests on `subject` (a pattern is allowed) with `handler`. `NotAuthorised`.

        An async generator function as `handler` answers with a stream of its chunks. The broker hands over
        at most `inflight` requests at once (0: no limit). A service with a `name` is found by `discover`.
        """
        if not subjects.is_pattern(subject):
            raise LocalProtocolError(f"not a subject pattern: {subject!r}")
        served = self._answers.services
        served[subject] = Endpoint(subject, handler, name, version, description)
        try:
            about = {"name": name, "ver": version, "desc": description}
            ref = self._calls.session.standing.serve(subject, **about, inflight=inflight)
            await self._calls.result(ref)
        except BaseException:
            self._calls.session.standing.withdraw(subject)
            served.pop(subject, None)
            raise
        if name and self._discoverable is None:
            await self._become_discoverable()

    async def unserve(self, subject: str, *, timeout: float = 5.0) -> None:
        """Answer no more requests on `subject`; those that are here already are still answered."""
        ref = self._calls.session.standing.unserve(subject, timeout, self._calls.now)
        if ref is not None:
            await self._calls.result(ref, timeout)
        self._answers.services.pop(subject, None)

    def answer(self, subject: str, handler: RequestHandler) -> None:
        """Answer requests that are addressed to this participant's key."""
        self._answers.direct[subject] = Endpoint(subject, handler)

    def on_signal(self, subject: str, handler: SignalHandler) -> None:
        self._answers.signals[subject] = handler

    async def _become_discoverable(self) -> None:
        instance = os.urandom(8).hex()  # new at each start of the program

        def info(_request: Request) -> bytes:
            return services.pack(self._answers.offered(instance))

        self._discoverable = False
        try:
            await self.serve(services.INFO, info)
            self._discoverable = True
        except NotAuthorised as error:
            log.debug("this participant's services are not found by name: %s", error)
