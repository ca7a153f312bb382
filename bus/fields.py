"""What the fields of SB/1's commands may hold: their bounds, their types, the names of capabilities."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

MAX_BATCH = 1024
MAX_DEADLINE = 86_400_000  # milliseconds
MAX_WINDOW = 1 << 20  # messages, or chunks, that may be under way at once
MAX_PULL = 256  # records of one PULL or READ
MAX_ASKED = 256  # requests in one REQUEST, replies in one REPLY
MAX_BUNDLE = 32  # messages in one BUNDLE
MAX_ID = 2**63 - 1

Id = Annotated[int, Meta(ge=0, le=MAX_ID)]
Key = Annotated[str, Meta(min_length=40, max_length=40)]
Subject = Annotated[str, Meta(min_length=1, max_length=255)]
Text = Annotated[str, Meta(max_length=255)]
Count = Annotated[int, Meta(ge=1, le=MAX_BATCH)]
Asked = Annotated[int, Meta(ge=1, le=MAX_ASKED)]
Milliseconds = Annotated[int, Meta(ge=0, le=MAX_DEADLINE)]
Window = Annotated[int, Meta(ge=0, le=MAX_WINDOW)]
Word = Annotated[str, Meta(max_length=64)]  # a name, an id or a token
Name = Annotated[str, Meta(min_length=1, max_length=64)]  # of a topic or a consumer

# What a client may say HELLO with; the broker uses the commands of one only towards who names it.
CREDIT = "credit"  # CREDIT and the key `credit`
STREAMS = "streams"  # streamed replies and their CREDIT and CANCEL
NOTICES = "notices"  # ENDED and NOTICE
DURABLE = "durable"  # durable topics
BUNDLES = "bundles"  # BUNDLE, in both directions
BATCHES = "batches"  # `n` in requests and replies, in both directions
CAPS = (CREDIT, STREAMS, NOTICES, DURABLE, BUNDLES, BATCHES)


class Grant(Struct, frozen=True, omit_defaults=True):
    """Leave to send: messages and bytes of bodies."""

    m: Window = 0
    b: Id = 0


class Limits(Struct, frozen=True, omit_defaults=True):
    """What the broker accepts from this session; bytes and counts. 0: not told."""

    payload: int
    head: int
    batch: int
    subscriptions: int
    inflight: int
    queue_messages: int
    queue_bytes: int
    sessions: int = 0  # of one key at a time
    will: int = 0  # bytes of its body
    group_messages: int = 0  # that wait for a queue group of which no member has room
    group_bytes: int = 0
