"""The commands of SB/1 as typed values. Specification: docs/protocol/sb1.md; to and from bytes: `wire`.

The numbers here are frozen: they never change meaning.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from bus.fields import (
    MAX_BUNDLE,
    MAX_PULL,
    Asked,
    Count,
    Grant,
    Id,
    Key,
    Limits,
    Milliseconds,
    Name,
    Subject,
    Text,
    Window,
    Word,
)


class Command(Struct, frozen=True, omit_defaults=True):
    """Base of all commands; `code` is the fourth byte of the head."""

    code: ClassVar[int]


# Client to broker.


class Hello(Command, frozen=True):
    """Opens a session; the first command on every connection."""

    code = 0x01
    name: Annotated[str, Meta(max_length=64)] = ""  # for people; carries no right
    lang: Annotated[str, Meta(max_length=32)] = ""
    ver: Annotated[str, Meta(max_length=32)] = ""
    caps: Annotated[list[Annotated[str, Meta(max_length=32)]], Meta(max_length=32)] = []
    credit: Grant | None = None  # deliveries under way at once; absent: as many as there are
    will: Subject | None = None  # where HELLO's body is published if the session ends without BYE


class Ping(Command, frozen=True):
    code = 0x02
    t: Id = 0  # echoed


class Bye(Command, frozen=True):
    """A clean goodbye."""

    code = 0x03
    reason: Text = ""


class Enrol(Command, frozen=True):
    """Asks that this key be admitted; the one command of a key that is not."""

    code = 0x04
    id: Id
    name: Word = ""
    token: Text = ""


class Bundle(Command, frozen=True):
    """Several messages in one: the body is an array of `n` heads, each followed by its body or nil."""

    code = 0x05
    n: Annotated[int, Meta(ge=1, le=MAX_BUNDLE)]


class Publish(Command, frozen=True):
    """Body to all subscribers of `s`; with `n` the body is an array of n bodies."""

    code = 0x10
    s: Subject
    n: Count = 1
    id: Id | None = None  # asks for an OK
    mid: Word = ""  # a durable topic stores what has the same once


class Signal(Command, frozen=True):
    """Body to one participant, no reply."""

    code = 0x11
    to: Key
    s: Subject
    id: Id | None = None


class Subscribe(Command, frozen=True):
    code = 0x12
    id: Id
    sid: Id  # chosen by the client; deliveries carry it
    s: Subject
    policy: Annotated[str, Meta(max_length=16)] = "drop_old"
    q: Word = ""  # queue group: each message goes to one of its members
    window: Window = 0  # of a queue group: messages under way to this member at once; 0: no limit


class Unsubscribe(Command, frozen=True):
    code = 0x13
    id: Id
    sid: Id


class Request(Command, frozen=True):
    """Body to whoever serves `s`, or to the participant `to`; exactly one reply or error.

    With `n` it is so many requests, their ids in a row from `id` on, their bodies in an array.
    """

    code = 0x14
    id: Id
    s: Subject
    dl: Milliseconds  # time left
    to: Key | None = None
    idem: Word = ""  # the same again gets the same reply, however often it is asked
    stream: Annotated[int, Meta(ge=0, le=64)] = (
        0  # chunks of a streamed reply under way at once; 0: one reply
    )
    all: bool = False  # everybody who serves `s` is asked
    n: Asked = 1


class Reply(Command, frozen=True):
    """The answer to the request delivered with handle `r`; with `err` it refuses.

    With `n` the answers to so many, their handles in a row from `r` on, their bodies in an array.
    """

    code = 0x15
    r: Id
    err: Annotated[str, Meta(max_length=64)] = ""
    msg: Annotated[str, Meta(max_length=1024)] = ""
    num: Annotated[int, Meta(ge=0, le=999)] = 0
    more: bool = False  # a chunk; the reply that ends the stream comes without
    n: Asked = 1


class Serve(Command, frozen=True):
    """Offers to answer requests on `s`; the rest is told to who looks for services."""

    code = 0x16
    id: Id
    s: Subject
    name: Word = ""
    ver: Annotated[str, Meta(max_length=32)] = ""
    desc: Text = ""
    inflight: Annotated[int, Meta(ge=0, le=1024)] = 0  # requests at once; 0: no limit


class Unserve(Command, frozen=True):
    code = 0x17
    id: Id
    s: Subject


class Credit(Command, frozen=True):
    """More leave: to a subscription `sid`, to the streamed reply to `ref`, or to the whole session."""

    code = 0x18
    sid: Id | None = None
    ref: Id | None = None
    m: Window = 0
    b: Id = 0


class Cancel(Command, frozen=True):
    """The reply to request `ref` is no longer wanted."""

    code = 0x19
    ref: Id


class Pull(Command, frozen=True):
    """Up to `n` records for a consumer of a durable topic; waits `wait` for the first."""

    code = 0x20
    id: Id
    topic: Name
    consumer: Name
    n: Annotated[int, Meta(ge=1, le=MAX_PULL)] = 1
    wait: Milliseconds = 0


class Settle(Command, frozen=True):
    """What became of records that were pulled."""

    code = 0x21
    topic: Name
    consumer: Name
    seqs: Annotated[list[Id], Meta(min_length=1, max_length=MAX_PULL)]
    act: Annotated[str, Meta(max_length=8)] = "ack"  # ack, nak, wip or term
    delay: Milliseconds = 0  # of nak: not again before
    id: Id | None = None  # asks for an OK


class Read(Command, frozen=True):
    """Up to `n` records of a durable topic from a place on; nothing is remembered of it."""

    code = 0x22
    id: Id
    topic: Name
    seq: Id | None = None  # the first wanted
    time: Id | None = None  # Unix milliseconds; what was stored then or later
    last: Id | None = None  # the last so many
    n: Annotated[int, Meta(ge=1, le=MAX_PULL)] = 1
    wait: Milliseconds = 0


# Broker to client.


class Welcome(Command, frozen=True):
    code = 0x81
    session: Id
    epoch: Id  # new at each start of the broker
    key: Key  # the key that the broker saw you prove
    roles: list[str]
    hb: Milliseconds  # be heard at least this often
    limits: Limits
    server: Text
    time: Id  # the broker's clock, Unix milliseconds
    caps: list[str] = []


class Pong(Command, frozen=True):
    code = 0x82
    t: Id
    epoch: Id


class Goodbye(Command, frozen=True):
    """The session is over; the broker cuts the connection next."""

    code = 0x83
    num: int
    reason: Text = ""


class Ok(Command, frozen=True):
    code = 0x84
    ref: Id
    seq: Id | None = None  # of a stored message; after PULL and READ the next to come
    dup: bool = False  # it was stored before, under `seq`
    left: Id | None = None  # after PULL and READ: records that wait


class Error(Command, frozen=True):
    code = 0x85
    num: int
    err: Text
    msg: Annotated[str, Meta(max_length=1024)] = ""
    ref: Id | None = None
    retry: Milliseconds = 0  # worth trying again after


class Enrolled(Command, frozen=True):
    """What became of ENROL; the connection is cut next."""

    code = 0x86
    ref: Id
    state: Word  # accepted, pending or rejected
    fingerprint: Word  # of the key that asked, to be compared by people
    roles: list[str] = []


class BundleDelivery(Command, frozen=True):
    """As BUNDLE, from the broker."""

    code = 0x87
    n: Annotated[int, Meta(ge=1, le=MAX_BUNDLE)]


class Delivery(Command, frozen=True, rename={"sender": "from"}):
    """A published body (`n` of them in an array) for subscription `sid`."""

    code = 0x90
    sid: Id
    s: Subject
    sender: Key
    n: Count = 1


class SignalDelivery(Command, frozen=True, rename={"sender": "from"}):
    code = 0x91
    s: Subject
    sender: Key


class Record(Command, frozen=True, rename={"sender": "from"}):
    """One stored message, for the PULL or READ `ref`."""

    code = 0x92
    ref: Id
    seq: Id
    s: Subject
    sender: Key
    t: Id  # when it was stored, Unix milliseconds
    dlv: Id = 0  # how often it was delivered to this consumer, this time included; 0: READ


class RequestDelivery(Command, frozen=True, rename={"sender": "from"}):
    """A request to answer with `Reply(r)`; `direct` when it was addressed to your key. `n` as in REQUEST."""

    code = 0x94
    r: Id
    s: Subject
    sender: Key
    dl: Milliseconds
    direct: bool = False
    stream: Window = 0  # chunks that may be sent before more are granted; 0: one reply
    n: Asked = 1


class ReplyDelivery(Command, frozen=True, rename={"sender": "from"}):
    """The answer to the request `ref`; with `n` the answers to so many from there on. `n` as in REPLY."""

    code = 0x95
    ref: Id
    sender: Key
    err: Annotated[str, Meta(max_length=64)] = ""
    msg: Annotated[str, Meta(max_length=1024)] = ""
    num: Annotated[int, Meta(ge=0, le=999)] = 0
    more: bool = False  # more replies, or chunks, to `ref` will come
    n: Asked = 1


class Gap(Command, frozen=True):
    """`lost` messages of subscription `sid` were dropped, of all it was to get the `first`-th and on."""

    code = 0x96
    sid: Id
    lost: Id
    first: Id = 0  # counted from 1


class CreditDelivery(Command, frozen=True):
    """The requester takes `m` more chunks of the reply with handle `r`."""

    code = 0x97
    r: Id
    m: Window


class CancelDelivery(Command, frozen=True):
    """Nobody waits for the reply with handle `r` any more."""

    code = 0x98
    r: Id


class Ended(Command, frozen=True):
    """The broker has taken away the subscription `sid` or, without, the service `s`."""

    code = 0x99
    num: int
    s: Subject
    sid: Id | None = None
    reason: Text = ""


class Notice(Command, frozen=True):
    """The broker will stop: no new requests, and GOODBYE within `drain` milliseconds."""

    code = 0x9A
    drain: Milliseconds
    reason: Text = ""


FROM_CLIENT: tuple[type[Command], ...] = (
    Hello, Ping, Bye, Enrol, Bundle, Publish, Signal, Subscribe, Unsubscribe, Request, Reply, Serve, Unserve,
    Credit, Cancel, Pull, Settle, Read,
)  # fmt: skip
FROM_BROKER: tuple[type[Command], ...] = (
    Welcome, Pong, Goodbye, Ok, Error, Enrolled, BundleDelivery,
    Delivery, SignalDelivery, Record, RequestDelivery, ReplyDelivery, Gap,
    CreditDelivery, CancelDelivery, Ended, Notice,
)  # fmt: skip
