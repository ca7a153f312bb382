"""What a topic and a consumer may be, and what gives way when a topic is full."""

from __future__ import annotations

from collections.abc import Iterable

from bus import subjects
from bus.errors import RemoteProtocolError
from bus.signals import ConsumerConfig, TopicConfig

MAX_TOPICS = 1024
MAX_SUBJECTS = 64  # of one topic
MAX_CONSUMERS = 256  # of one topic
MAX_INFLIGHT = 4096  # records that one consumer may have unsettled
MAX_WAIT = 86_400.0  # seconds until a record is delivered again
MAX_AGE = 100 * 366 * 86_400.0  # seconds
MAX_DEDUP = 7 * 86_400.0  # seconds
DROP_OLD, REJECT = "drop_old", "reject"
STARTS = ("all", "new", "last", "seq", "time")
# What a record takes beside its body and its subject: the sender, the time, the checksum.
OVERHEAD = 64


def size(subject: str, body: bytes) -> int:
    """The bytes that a record counts against its topic's limit."""
    return OVERHEAD + len(subject) + len(body)


def check_topic(config: TopicConfig) -> None:
    """`RemoteProtocolError` 400 unless it can be a topic."""
    _check_name("topic", config.topic)
    if not 1 <= len(config.subjects) <= MAX_SUBJECTS:
        raise _bad(f"topic {config.topic}: 1 to {MAX_SUBJECTS} subjects")
    for index, pattern in enumerate(config.subjects):
        if not subjects.is_pattern(pattern):
            raise _bad(f"topic {config.topic}: not a pattern: {pattern!r}")
        if any(subjects.overlaps(pattern, other) for other in config.subjects[:index]):
            raise _bad(f"topic {config.topic}: {pattern} is among its other subjects already")
    if config.full not in {DROP_OLD, REJECT}:
        raise _bad(f"topic {config.topic}: full is {DROP_OLD} or {REJECT}, not {config.full!r}")
    _check_range(config.topic, "max_age", config.max_age, 0, MAX_AGE)
    _check_range(config.topic, "max_bytes", config.max_bytes, 0, 1 << 62)
    _check_range(config.topic, "max_messages", config.max_messages, 0, 1 << 40)
    _check_range(config.topic, "dedup", config.dedup, 0, MAX_DEDUP)


def check_consumer(config: ConsumerConfig, topic: TopicConfig) -> None:
    """`RemoteProtocolError` 400 unless it can be a consumer of `topic`."""
    name = f"{config.topic}/{config.consumer}"
    _check_name("consumer", config.consumer)
    if config.start not in STARTS:
        raise _bad(f"consumer {name}: start is one of {', '.join(STARTS)}, not {config.start!r}")
    _check_range(name, "at", config.at, 0, 1 << 62)
    if not subjects.is_pattern(config.filter):
        raise _bad(f"consumer {name}: filter is not a pattern: {config.filter!r}")
    _check_range(name, "ack_wait", config.ack_wait, 0.1, MAX_WAIT)
    _check_range(name, "max_deliver", config.max_deliver, 0, 1_000_000)
    _check_range(name, "max_inflight", config.max_inflight, 1, MAX_INFLIGHT)
    dead = dead_subject(config)
    if not subjects.is_subject(dead) or dead.startswith("$"):
        raise _bad(f"consumer {name}: dead is not a subject for messages: {dead!r}")
    if any(subjects.covers(pattern, dead) for pattern in topic.subjects):
        raise _bad(f"consumer {name}: what goes to {dead} would come back to its own topic")


def dead_subject(config: ConsumerConfig) -> str:
    """Where what could not be delivered is published."""
    return config.dead or f"dead.{config.topic}"


def same_place(old: ConsumerConfig, new: ConsumerConfig) -> bool:
    """Whether `new` changes only what may change of a consumer that has begun."""
    return (old.start, old.at, old.filter) == (new.start, new.at, new.filter)


def refuse_if_full(
    config: TopicConfig, messages: int, held: int, more_messages: int, more: int
) -> None:
    """507 unless `more` bytes in `more_messages` fit into a topic that has `held` bytes in `messages`."""
    if config.max_bytes and more > config.max_bytes:
        raise _full(config, f"{more} bytes, and it holds at most {config.max_bytes}")
    if config.max_messages and more_messages > config.max_messages:
        raise _full(config, f"{more_messages} messages, and it holds at most {config.max_messages}")
    if config.full != REJECT:
        return
    if config.max_bytes and held + more > config.max_bytes:
        raise _full(config, f"{held} of at most {config.max_bytes} bytes are taken")
    if config.max_messages and messages + more_messages > config.max_messages:
        raise _full(config, f"{messages} of at most {config.max_messages} messages are stored")


def over(config: TopicConfig, messages: int, held: int) -> bool:
    """Whether a topic with `held` bytes in `messages` has to drop its oldest."""
    return bool(
        (config.max_messages and messages > config.max_messages)
        or (config.max_bytes and held > config.max_bytes)
    )


def excess(
    config: TopicConfig, messages: int, held: int, oldest: Iterable[tuple[int, int, int]], now: int
) -> tuple[int, int, int]:
    """What to drop of the `oldest` (sequence, size and time of each, from the first on).

    Gives the sequence of the last to drop (0: none), and how many messages and bytes go. `now` and times
    are Unix milliseconds.
    """
    until, count, freed = 0, 0, 0
    horizon = now - config.max_age * 1000 if config.max_age else -1.0
    for seq, size_of, t in oldest:
        if not over(config, messages - count, held - freed) and t > horizon:
            break
        until, count, freed = seq, count + 1, freed + size_of
    return until, count, freed


def _full(config: TopicConfig, why: str) -> RemoteProtocolError:
    return RemoteProtocolError(507, "store_full", f"topic {config.topic}: {why}")


def _check_name(what: str, name: str) -> None:
    if not 1 <= len(name) <= 64 or not subjects.is_subject(name) or name.startswith("$"):
        raise _bad(f"{what}: not a name (1 to 64 of A-Z a-z 0-9 _ - .): {name!r}")


def _check_range(name: str, what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also refuses NaN
        raise _bad(f"{name}: {what} is {low} to {high}, not {value}")


def _bad(problem: str) -> RemoteProtocolError:
    return RemoteProtocolError(400, "bad_request", problem)
