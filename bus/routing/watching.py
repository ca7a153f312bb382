"""What the broker tells of itself: figures of the whole, whether it is well, what it keeps.

Pure: what only the process knows, the shell gives as `Vitals`; what other parts of the core know, they
give as `Sources`. Nothing here costs anything while nobody asks, but one addition per closed session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bus import signals, wire
from bus.routing import pages
from bus.routing.parts import Answer, Part, Question
from bus.routing.peers import Session
from bus.routing.sessions import Sessions

MAX_LAG = 1.0  # seconds of one turn of the loop; above, peers wait too long
MAX_FDS_USED = 0.9  # of the open files allowed; above, new connections are about to fail
MAX_REASONS = 64  # kinds of refusals told apart; they are words of ours, so this is never met


@dataclass(frozen=True)
class Vitals:
    """What the shell knows of its process."""

    start: float = 0.0  # Unix seconds
    cpu_seconds: float = 0.0
    rss: int = 0  # bytes
    fds: int = 0
    max_fds: int = 0  # 0: not known
    lag: float = 0.0  # seconds that the longest turn of the loop took lately
    refused: Mapping[str, int] = field(default_factory=dict)  # connections, by reason
    problems: tuple[str, ...] = ()  # sentences


@dataclass
class Sources:
    """What other parts of the broker know; until one is set, there is nothing of its kind."""

    services: Callable[[], Sequence[signals.ServiceInfo]] = tuple
    topics: Callable[[], Sequence[signals.TopicInfo]] = tuple
    closed: Callable[[], Sequence[signals.ClosedSession]] = tuple  # newest first
    store_problem: Callable[[], str] = str  # a sentence; empty: the store is well


@dataclass(frozen=True)
class Figures:
    """All that metrics are made of, at one moment."""

    varz: signals.Varz
    health: signals.Health
    vitals: Vitals
    topics: Sequence[signals.TopicInfo]
    closed: Mapping[
        int, int
    ]  # sessions that have ended since the start, by the number of their end


@dataclass
class _Ended:
    """What the sessions that have ended had counted."""

    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    lost: int = 0

    def add(self, info: signals.SessionInfo) -> None:
        self.messages_in += info.messages_in
        self.messages_out += info.messages_out
        self.bytes_in += info.bytes_in
        self.bytes_out += info.bytes_out
        self.lost += info.lost


class Watching(Part):
    """Figures of one broker. `vitals` is asked anew for each answer, `render` makes Prometheus' text."""

    def __init__(
        self,
        sessions: Sessions,
        sources: Sources,
        *,
        vitals: Callable[[], Vitals] = Vitals,
        render: Callable[[Figures], str] | None = None,
    ) -> None:
        self.sources = sources
        self._sessions = sessions
        self._vitals = vitals
        self._render = render
        self._ended = _Ended()
        self._ends: Counter[int] = Counter()
        sessions.leaving.append(self._leave)

    @property
    def answers(self) -> Mapping[str, Answer]:
        known: dict[str, Answer] = {
            signals.VARZ: lambda _: self.varz(),
            signals.HEALTH: lambda _: self.health(),
            signals.CLOSED: self._list_closed,
        }
        render = self._render
        if render is not None:
            known[signals.METRICS] = lambda _: signals.Metrics(render(self.figures()))
        return known

    def _list_closed(self, question: Question) -> signals.ClosedSessions:
        query = pages.asked(question.body, signals.PageQuery)
        ended = ((_newest_first(session), session) for session in self.sources.closed())
        return signals.ClosedSessions(*pages.page(ended, query, self._sessions.limits.payload))

    def varz(self) -> signals.Varz:
        return self._varz(self._vitals(), len(self.sources.topics()))

    def health(self) -> signals.Health:
        return self._health(self._vitals())

    def figures(self) -> Figures:
        vitals, topics = self._vitals(), self.sources.topics()
        return Figures(
            self._varz(vitals, len(topics)), self._health(vitals), vitals, topics, dict(self._ends)
        )

    def sessions(self) -> signals.Sessions:
        return signals.Sessions([session.info() for session in self._sessions])

    def closed(self) -> signals.ClosedSessions:
        return signals.ClosedSessions(list(self.sources.closed()))

    def services(self) -> signals.Services:
        return signals.Services(list(self.sources.services()))

    def topics(self) -> signals.Topics:
        return signals.Topics(list(self.sources.topics()))

    def _varz(self, vitals: Vitals, topics: int) -> signals.Varz:
        sessions, info = self._sessions, self._sessions.info
        total = _Ended(**vars(self._ended))
        subscriptions = services = inflight = queued = 0
        for session in sessions:
            told = session.info()
            total.add(told)
            subscriptions += told.subscriptions
            services += told.services
            queued += told.queued_bytes
            inflight += session.inflight
        refused = Counter(vitals.refused) + sessions.denied
        return signals.Varz(
            endpoint=info.endpoint, key=info.key, epoch=info.epoch, version=info.version, pid=info.pid,
            start=vitals.start, now=sessions.clock(), cpu_seconds=vitals.cpu_seconds, rss=vitals.rss,
            sessions=len(sessions), keys=len(sessions.access.entries), subscriptions=subscriptions,
            services=services, inflight=inflight, messages_in=total.messages_in,
            messages_out=total.messages_out, bytes_in=total.bytes_in, bytes_out=total.bytes_out,
            queued_bytes=queued, lost=total.lost, topics=topics,
            refused=dict(refused.most_common(MAX_REASONS)),
        )  # fmt: skip

    def _health(self, vitals: Vitals) -> signals.Health:
        problems = list(vitals.problems)
        if vitals.lag > MAX_LAG:
            problems.append(f"one turn of the broker's loop took {vitals.lag:.1f} s lately")
        if vitals.max_fds and vitals.fds > MAX_FDS_USED * vitals.max_fds:
            problems.append(
                f"{vitals.fds} of {vitals.max_fds} open files are in use; raise the limit (ulimit -n)"
            )
        if trouble := self.sources.store_problem():
            problems.append(f"the store of durable topics: {trouble}")
        return signals.Health(ok=not problems, problems=problems)

    def _leave(self, session: Session, num: int, _reason: str) -> None:
        self._ended.add(session.info())
        self._ends[num] += 1


def _newest_first(session: signals.ClosedSession) -> str:
    """The place of a session that has ended among the others."""
    return f"{wire.MAX_ID - int(session.until * 1e6):019d} {wire.MAX_ID - session.session:019d}"
