"""Who offers to answer what: SERVE's patterns, the choice of a worker, and those who wait for one.

A request waits for those who offer one of the patterns that matched its subject when it came. Whoever
offers another pattern later gets later requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from bus import subjects
from bus.errors import RemoteProtocolError
from bus.routing.handles import Desk, Errand, Line, Offer
from bus.routing.peers import Session

MAX_WAITING = 1024  # requests that wait for a worker: of a subject, and for one worker alone


class Offers:
    """The offers of one broker. `keeps_up` says whether a session has room for what is said to it."""

    def __init__(self, keeps_up: Callable[[Session], bool]) -> None:
        self._keeps_up = keeps_up
        self._tree: subjects.SubjectTree[Offer] = subjects.SubjectTree()
        self._lines: dict[str, Line] = {}  # by pattern
        self._offered: Counter[str] = Counter()  # how many offer a pattern
        self._waiting: dict[str, int] = {}  # by subject
        self._turn = 0  # spreads requests over workers with the same load

    def add(self, desk: Desk, pattern: str) -> Offer:
        """A new offer of a session that has none for this pattern."""
        line = self._lines.setdefault(pattern, {})
        offer = desk.offers[pattern] = Offer(desk, pattern, line)
        self._offered[pattern] += 1
        self._tree.add(pattern, offer)
        return offer

    def remove(self, offer: Offer) -> list[Errand]:
        """Withdraw an offer; what waited for it and now has nobody left to wait for."""
        del offer.desk.offers[offer.pattern]
        self._tree.remove(offer.pattern, offer)
        stranded = list(offer.own)
        self._offered[offer.pattern] -= 1
        if not self._offered[offer.pattern]:
            del self._offered[offer.pattern]
            line = self._lines.pop(offer.pattern)
            for errand in list(line):
                if len(errand.lines) == 1:
                    stranded.append(errand)
                else:
                    del line[errand]
                    errand.lines = tuple(other for other in errand.lines if other is not line)
        for errand in stranded:
            self.leave_lines(errand)
        return stranded

    def choose(self, subject: str) -> Offer | None:
        """The offer whose worker has the least to do, ties in turn; None when none has room.

        `RemoteProtocolError` 404 when nobody serves it, 429 when nobody reads what it is told.
        """
        offers = self._tree.match(subject)
        if len(offers) == 1:  # as below, but most services are this one
            offer = offers[0]
            if offer.limit and offer.inflight >= offer.limit:
                return None
            session = offer.desk.session
            if not session.outbox.messages or self._keeps_up(session):
                return offer
            best, limited = None, False
        elif offers:
            best, limited = self._least_loaded(offers)
        else:
            raise _no_responders(subject)
        if best is None and not limited:
            raise RemoteProtocolError(429, "limit", f"who serves {subject} does not keep up")
        return best

    def sole(self, subject: str) -> Offer | None:
        """The one offer there is, if it has no limit and its worker keeps up."""
        offers = self._tree.match(subject)
        if len(offers) != 1 or offers[0].limit or not self._keeps_up(offers[0].desk.session):
            return None
        return offers[0]

    def _least_loaded(self, offers: list[Offer]) -> tuple[Offer | None, bool]:
        """The one, and whether a limit kept others out of the choice."""
        self._turn += 1
        count = len(offers)
        start = self._turn % count
        best, least, limited = None, 1 << 62, False
        for index in range(
            start - count, start
        ):  # from -count on: once around, beginning at `start`
            offer = offers[index]
            if not offer.has_room:
                limited = True
                continue
            load = len(offer.desk.errands)
            if load < least and self._keeps_up(offer.desk.session):
                best, least = offer, load
                if not load:
                    break
        return best, limited

    def everybody(self, subject: str) -> list[Offer]:
        """An offer of each session that serves the subject; 404 when there is none."""
        offers = {offer.desk: offer for offer in self._tree.match(subject)}
        if not offers:
            raise _no_responders(subject)
        return list(offers.values())

    # Those who wait.

    def check_line(self, subject: str) -> None:
        """`RemoteProtocolError` 429 when too many wait for a worker."""
        if self._waiting.get(subject, 0) >= MAX_WAITING:
            problem = f"{MAX_WAITING} requests to {subject} wait for a worker already"
            raise RemoteProtocolError(429, "limit", problem)

    def wait(self, errand: Errand) -> None:
        """Let it wait for the first of all who serve its subject."""
        lines = {id(offer.line): offer.line for offer in self._tree.match(errand.subject)}
        errand.lines = tuple(lines.values())
        for line in errand.lines:
            line[errand] = None
        self._waiting[errand.subject] = self._waiting.get(errand.subject, 0) + 1

    def wait_for(self, errand: Errand, offer: Offer) -> bool:
        """Let it wait for this one; False when too many do, or when waiting would not help."""
        if not offer.limit or len(offer.own) >= MAX_WAITING:
            return False
        offer.own[errand] = None
        errand.lines = (offer.own,)
        errand.offer = offer
        return True

    def next_for(self, offer: Offer) -> Errand | None:
        """Take who waited longest for this offer out of the lines, if it has room."""
        if not (offer.own or offer.line) or not offer.has_room:
            return None
        desk = offer.desk
        withdrawn = desk.offers.get(offer.pattern) is not offer or not desk.open
        if withdrawn or not self._keeps_up(desk.session):
            return None
        errand = next(iter(offer.own or offer.line))
        self.leave_lines(errand)
        return errand

    def leave_lines(self, errand: Errand) -> None:
        """It waits no more."""
        if not errand.lines:
            return
        for line in errand.lines:
            line.pop(errand, None)
        errand.lines = ()
        if errand.offer is not None:  # it waited for this one alone
            errand.offer = None
            return
        waiting = self._waiting[errand.subject] - 1
        if waiting:
            self._waiting[errand.subject] = waiting
        else:
            del self._waiting[errand.subject]

    @property
    def waiting(self) -> int:
        """Requests that wait for whoever gets room."""
        return sum(self._waiting.values())


def _no_responders(subject: str) -> RemoteProtocolError:
    return RemoteProtocolError(404, "no_responders", f"nobody serves {subject}")
