"""Bodies of the signals and system requests that every part of the product understands.

All are MessagePack maps; unknown keys are ignored, so that a newer peer may say more.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from bus.errors import Refused

# Requests to a participant, addressed to its key.
PING = "signal.ping"
USAGE = "signal.usage"
SHUTDOWN = "signal.shutdown"

# Requests to the broker.
SESSIONS = "$SYS.sessions"
INFO = "$SYS.info"
ACCESS_PUT = "$SYS.access.put"
ACCESS_REMOVE = "$SYS.access.remove"
ACCESS_LIST = "$SYS.access.list"

CLOSED = "$SYS.closed"
KICK = "$SYS.kick"
SERVICES = "$SYS.services"
VARZ = "$SYS.varz"
HEALTH = "$SYS.health"
METRICS = "$SYS.metrics"
ENROL_LIST = "$SYS.enrol.list"
ENROL_OPEN = "$SYS.enrol.open"
ENROL_TOKEN = "$SYS.enrol.token"
ENROL_ACCEPT = "$SYS.enrol.accept"
ENROL_REJECT = "$SYS.enrol.reject"
TOPICS = "$SYS.topics"
TOPIC_PUT = "$SYS.topic.put"
TOPIC_REMOVE = "$SYS.topic.remove"
CONSUMERS = "$SYS.consumers"
CONSUMER_PUT = "$SYS.consumer.put"
CONSUMER_REMOVE = "$SYS.consumer.remove"

# Published by the broker, with the participant's key in hex as the last token.
PRESENCE = "$SYS.presence"
# Published by the broker, with one of `EVENTS` as the last token.
EVENT = "$SYS.event"
EVENTS = ("opened", "closed", "denied", "slow", "revoked")


class Pinged(Struct, frozen=True):
    t: float  # the participant's clock, Unix seconds


class Usage(Struct, frozen=True):
    """What a participant says of itself; seconds, bytes, counts."""

    cpu_seconds: float
    rss: int
    threads: int
    fds: int
    bus_in: int
    bus_out: int


class ShuttingDown(Struct, frozen=True):
    pid: int


MAX_PAGE = 1000  # items in one answer; even if each session says all it may, so many fit in a body


class PageQuery(Struct, frozen=True, omit_defaults=True):
    """One page of a list: what comes after the place `after`, which is `next` of the page before."""

    after: Annotated[str, Meta(max_length=512)] = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = MAX_PAGE


class SessionsQuery(Struct, frozen=True, omit_defaults=True):
    """All sessions or those of a key, by number: `limit` of them that come after the number `after`."""

    key: str | None = None
    after: int = 0
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = MAX_PAGE


class SessionInfo(Struct, frozen=True):
    """One session as the broker counts it; bytes are of heads and bodies."""

    key: str
    name: str
    since: float  # Unix seconds
    bytes_in: int  # from the participant to the broker
    bytes_out: int
    messages_in: int
    messages_out: int
    subscriptions: int
    session: int = 0  # its number
    roles: list[str] = []
    lang: str = ""
    ver: str = ""
    services: int = 0
    queued: int = 0  # messages that wait at the broker
    queued_bytes: int = 0
    lost: int = 0  # messages that its subscriptions lost


class Sessions(Struct, frozen=True):
    """One page of them; `left` more come after it."""

    sessions: list[SessionInfo]
    left: int = 0

    @property
    def rest(self) -> SessionsQuery | None:
        """What to ask for the next page of all; None after the last."""
        return SessionsQuery(after=self.sessions[-1].session) if self.left else None


class BrokerInfo(Struct, frozen=True):
    endpoint: str
    key: str
    epoch: int
    version: str
    pid: int
    sessions: int


class Rules(Struct, frozen=True, omit_defaults=True):
    """Patterns per verb, beside what the roles say."""

    publish: list[str] = []
    subscribe: list[str] = []
    request: list[str] = []
    serve: list[str] = []
    signal: list[str] = []


class AccessEntry(Struct, frozen=True, omit_defaults=True):
    """One allowed key; `name` is for people, `roles` and `allow` grant, `deny` wins over both."""

    key: str
    name: str
    roles: list[str]
    allow: Rules | None = None
    deny: Rules | None = None


class AccessKey(Struct, frozen=True):
    key: str


class AccessEntries(Struct, frozen=True, omit_defaults=True):
    keys: list[AccessEntry]
    next: str = ""  # of a page: where the one after it begins; empty: it is the last


class Presence(Struct, frozen=True):
    key: str
    name: str
    state: str  # "online" or "offline"
    reason: str = ""


class Event(Struct, frozen=True, omit_defaults=True):
    """What happened to a session or was refused to it; `num` and `reason` as in GOODBYE or ERROR."""

    what: str  # one of EVENTS
    key: str
    at: float  # Unix seconds
    name: str = ""
    session: int = 0
    num: int = 0
    reason: str = ""
    count: int = 1  # events of this kind that this one stands for


class ClosedSession(Struct, frozen=True):
    key: str
    name: str
    session: int
    since: float  # Unix seconds
    until: float
    num: int
    reason: str


class ClosedSessions(Struct, frozen=True, omit_defaults=True):
    """The last that were closed, newest first."""

    sessions: list[ClosedSession]
    next: str = ""


class KickQuery(Struct, frozen=True, omit_defaults=True):
    """All sessions of a key, or the one with this number."""

    key: str | None = None
    session: int | None = None
    reason: str = ""


class Kicked(Struct, frozen=True):
    count: int


class ServiceInfo(Struct, frozen=True):
    """One session's offer to serve `subject`, as the broker counts it."""

    subject: str
    name: str
    ver: str
    desc: str
    key: str
    session: int
    limit: int  # requests at once; 0: none
    inflight: int
    requests: int  # since it was offered
    errors: int
    seconds: float  # spent on all of them together


class Services(Struct, frozen=True, omit_defaults=True):
    services: list[ServiceInfo]
    next: str = ""


class Varz(Struct, frozen=True):
    """The broker as a whole; counters are since its start."""

    endpoint: str
    key: str
    epoch: int
    version: str
    pid: int
    start: float  # Unix seconds
    now: float
    cpu_seconds: float
    rss: int
    sessions: int
    keys: int  # on the access list
    subscriptions: int
    services: int
    inflight: int  # requests that wait for a reply
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    queued_bytes: int
    lost: int  # messages dropped for slow readers
    topics: int
    refused: dict[str, int]


class Health(Struct, frozen=True):
    ok: bool
    problems: list[str] = []


class Metrics(Struct, frozen=True):
    text: str  # Prometheus' text format


class Opening(Struct, frozen=True):
    """Unknown keys may ask to be admitted for so long; 0 closes."""

    seconds: float


class TokenQuery(Struct, frozen=True):
    roles: list[str]
    name: str = ""
    seconds: float = 3600.0  # until it expires


class Token(Struct, frozen=True):
    """Admits one key, once; shown only now."""

    token: str
    expires: float  # Unix seconds


class TokenInfo(Struct, frozen=True):
    id: str  # the first digits of the token's hash
    name: str
    roles: list[str]
    expires: float


class Enrolment(Struct, frozen=True):
    key: str
    name: str
    fingerprint: str
    since: float  # Unix seconds


class Enrolments(Struct, frozen=True):
    pending: list[Enrolment]
    tokens: list[TokenInfo]
    open_until: float  # Unix seconds; 0: closed


class EnrolmentAnswer(Struct, frozen=True):
    key: str
    name: str = ""
    roles: list[str] = []


class TopicConfig(Struct, frozen=True):
    """A durable topic: what is published to `subjects` is stored, until one of the limits (0: none)."""

    topic: str
    subjects: list[str]
    max_age: float = 0.0  # seconds
    max_bytes: int = 0
    max_messages: int = 0
    full: str = "drop_old"  # or "reject": refuse what does not fit
    dedup: float = 120.0  # seconds for which a message id is remembered


class TopicInfo(Struct, frozen=True):
    config: TopicConfig
    first: int  # sequence of the oldest message; last + 1 when there is none
    last: int
    messages: int
    bytes: int
    consumers: int


class TopicName(Struct, frozen=True):
    topic: str


class Topics(Struct, frozen=True, omit_defaults=True):
    topics: list[TopicInfo]
    next: str = ""


class ConsumerConfig(Struct, frozen=True):
    topic: str
    consumer: str
    start: str = "all"  # or "new", "last", "seq", "time"
    at: int = 0  # the sequence, or Unix milliseconds
    filter: str = ">"  # only what was published to these subjects
    ack_wait: float = 30.0  # seconds until a record that nobody settled is delivered again
    max_deliver: int = 5  # times; then it goes to `dead`; 0: no limit
    max_inflight: int = 256  # records delivered and not settled
    dead: str = ""  # subject for what could not be delivered; empty: dead.<topic>


class ConsumerInfo(Struct, frozen=True):
    config: ConsumerConfig
    floor: int  # all up to this are settled
    inflight: int
    waiting: int  # records that it has not got yet
    redelivered: int  # since the broker's start
    dead: int


class ConsumerName(Struct, frozen=True):
    topic: str
    consumer: str


class ConsumersQuery(PageQuery, frozen=True, omit_defaults=True):
    topic: str | None = None  # of this one only


class Consumers(Struct, frozen=True, omit_defaults=True):
    consumers: list[ConsumerInfo]
    next: str = ""


class Done(Struct, frozen=True):
    """The empty answer."""


T = TypeVar("T")
_encoder = msgspec.msgpack.Encoder()


def pack(value: object) -> bytes:
    return _encoder.encode(value)


def unpack(body: bytes, kind: type[T]) -> T:
    """`body` as a `kind`; `Refused` 400 when it is not one, which a handler may let out."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Refused(400, "bad_body", f"{kind.__name__}: {error}") from None
