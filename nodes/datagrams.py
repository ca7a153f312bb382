"""Datagrams between apps: which app has which port, who may send to it, and the record they travel in.

    u8 3 | u8 0 | u16 port | u16 source port | data

Specified in docs/protocol/mesh.md, section 4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from nodes.acks import Told
from nodes.wire import MAX_DATAGRAM, WireError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Collection

_HEAD: Final = struct.Struct(">BBHH")  # kind, 0, port, source port
FIRST_FREE: Final = 49_152  # ports from here on are given to who wants any
_LAST: Final = 65_535


class Mailbox(Protocol):
    """An app that takes datagrams."""

    def datagram(self, port: int, origin: str, source: int, data: bytes) -> bool:
        """A datagram came from port `source` of the node `origin`; False: there is no room."""
        ...


@dataclass(frozen=True, slots=True)
class _Binding:
    mailbox: Mailbox
    allow: frozenset[str] | None  # keys of nodes; None: all


class PortInUse(Exception):
    """Another app has the port, or there is none free."""


class Datagrams:
    """The datagram ports of a node. What is dropped is counted."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._bound: dict[int, _Binding] = {}
        self._next = FIRST_FREE

    def bind(self, port: int, mailbox: Mailbox, allow: Collection[str] | None) -> int:
        """Give `port`, or for 0 one that is free, to an app; raises PortInUse."""
        port = port or self._free()
        if port in self._bound:
            raise PortInUse(port)
        self._bound[port] = _Binding(mailbox, None if allow is None else frozenset(allow))
        return port

    def unbind(self, port: int) -> None:
        self._bound.pop(port, None)

    def came(self, origin: str, record: memoryview) -> None:
        """A record of the peer `origin`; raises WireError when it is none."""
        if len(record) < _HEAD.size or len(record) > _HEAD.size + MAX_DATAGRAM:
            raise WireError(f"datagram record of {len(record)} bytes")
        _, _, port, source = _HEAD.unpack_from(record)
        binding = self._bound.get(port)
        if not port or not source:
            raise WireError("datagram with a port 0")
        if binding is None:
            self._counters["datagram_no_port"] += 1
        elif binding.allow is not None and origin not in binding.allow:
            self._counters["datagram_not_allowed"] += 1
        elif binding.mailbox.datagram(port, origin, source, bytes(record[_HEAD.size :])):
            self._counters["datagram_in"] += 1
        else:
            self._counters["datagram_app_full"] += 1

    def _free(self) -> int:
        for _ in range(_LAST - FIRST_FREE + 1):
            port = self._next
            self._next = port + 1 if port < _LAST else FIRST_FREE
            if port not in self._bound:
                return port
        raise PortInUse(0)


def pack(port: int, source: int, data: bytes) -> bytes:
    """The record for a datagram from port `source` to `port`."""
    return _HEAD.pack(Told.DATAGRAM, 0, port, source) + data
