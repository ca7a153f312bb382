"""The daemon's events on the bus: published as they happen, and the last number again after a break."""

from __future__ import annotations

import logging

from bus.client import Bus
from bus.errors import BusError
from bus.signals import pack
from viscript.eventlog import EventLog
from viscript.events import SUBJECT, Event, Published

log = logging.getLogger(__name__)


class Announcer:
    """Publishes what `events` tells. What the bus does not take is not kept: followers see the gap."""

    def __init__(self, bus: Bus, events: EventLog) -> None:
        self._bus = bus
        self._events = events
        events.told = self._tell
        bus.on_reconnect(lambda: self._tell(None))

    def _tell(self, event: Event | None) -> None:
        published = Published(host=self._events.host, last=self._events.last, event=event)
        try:
            self._bus.publish_nowait(SUBJECT, pack(published))
        except BusError as error:
            log.debug("an event is not published: %s", error)
