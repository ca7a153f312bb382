"""The daemon's events on the bus: published as they happen, and the last number again after a break.

Whoever may subscribe hears them, whatever role they have here: a host that lets others see nothing tells only
that there is something to be asked for.
"""

from __future__ import annotations

import logging

from bus.client import Bus
from bus.errors import BusError
from bus.signals import pack
from viscript.eventlog import EventLog
from viscript.events import SUBJECT, Event, Published

log = logging.getLogger(__name__)


class Announcer:
    """Publishes what `events` tells, or with `numbers_only` that it does.

    What the bus does not take is not kept: followers see the gap.
    """

    def __init__(self, bus: Bus, events: EventLog, *, numbers_only: bool = False) -> None:
        self._bus = bus
        self._numbers_only = numbers_only
        self._events = events
        events.told = self._tell
        bus.on_reconnect(lambda: self._tell(None))

    def _tell(self, event: Event | None) -> None:
        if self._numbers_only:
            event = None
        published = Published(host=self._events.host, last=self._events.last, event=event)
        try:
            self._bus.publish_nowait(SUBJECT, pack(published))
        except BusError as error:
            log.debug("an event is not published: %s", error)
