"""What a participant tells of the services it offers, to whoever asks on `$SRV.info`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from bus import wire

INFO = "$SRV.info"


class Endpoint(Struct, frozen=True):
    """One subject that is served, and how it went since the program started."""

    subject: wire.Subject
    requests: int = 0
    errors: int = 0
    seconds: float = 0.0  # spent on all of them together


class Service(Struct, frozen=True, omit_defaults=True):
    """One offer by one program. `key` is who offers it: set by the reader, from who answered."""

    name: wire.Word
    version: Annotated[str, Meta(max_length=32)] = ""
    description: wire.Text = ""
    id: wire.Word = ""  # of the running program, new at each start
    endpoints: Annotated[list[Endpoint], Meta(max_length=1024)] = []
    requests: int = 0
    errors: int = 0
    seconds: float = 0.0
    key: Annotated[str, Meta(max_length=40)] = ""


class Services(Struct, frozen=True):
    """The answer."""

    services: Annotated[list[Service], Meta(max_length=1024)]


def pack(services: list[Service]) -> bytes:
    return msgspec.msgpack.encode(Services(services))


def unpack(body: bytes, key: str) -> list[Service]:
    """The services that the participant `key` tells of; none when it tells nonsense."""
    try:
        told = msgspec.msgpack.decode(body, type=Services).services
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return []
    return [msgspec.structs.replace(service, key=key) for service in told]
