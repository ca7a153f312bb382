"""How a running broker is watched: its figures over the bus and, where wanted, as pages over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from bus.routing.router import Router
from bus.routing.watching import Figures, Sources, Vitals, Watching
from bus.vitals import Pulse, read_vitals

if TYPE_CHECKING:
    from bus.monitor import Monitor


class Lookout:
    """Lets `router` answer what is asked about the broker, and opens the pages if they have an address.

    `refused` counts connections by reason, `wake` makes the loop call `answer`. Raises `BusError` when the
    address is taken.
    """

    def __init__(
        self,
        router: Router,
        refused: Mapping[str, int],
        address: tuple[str, int] | None,
        wake: Callable[[], None],
    ) -> None:
        self.pulse = Pulse()
        self.access_problem = ""  # why the access list in force is not the file's
        self.sources = Sources(
            services=lambda: router.requests.services().services,
            closed=lambda: router.presence.closed,
        )
        self._start = time.time()
        self._refused = refused
        self._watching = Watching(
            router.sessions, self.sources, vitals=self._vitals, render=_render
        )
        router.add(self._watching)
        self._pages = None if address is None else _open_pages(address, wake)

    @property
    def url(self) -> str | None:
        """Where the pages are, if they are wanted."""
        return self._pages.url if self._pages is not None else None

    def start(self) -> None:
        if self._pages is not None:
            self._pages.start()

    def close(self) -> None:
        if self._pages is not None:
            self._pages.close()

    def answer(self) -> None:
        """Called by the loop when it was woken: answer what the pages have asked."""
        if self._pages is not None:
            self._pages.inbox.answer(self._watching)

    def _vitals(self) -> Vitals:
        problems = (self.access_problem,) if self.access_problem else ()
        return read_vitals(self._start, self.pulse, self._refused, problems)


def _open_pages(address: tuple[str, int], wake: Callable[[], None]) -> Monitor:
    from bus.monitor import Monitor  # imports http.server, so only where it is wanted

    return Monitor(address, wake)


def _render(figures: Figures) -> str:
    from bus import metrics  # imports prometheus-client, so only when somebody asks

    return metrics.text(figures)
