"""A message bus on which a public key is the identity.

`connect` makes an asyncio program a participant, `bus.caller.Caller` a blocking one, and `bus.process`
makes a launched program a signal client. Names are loaded when first used, so that a command line that
needs one of them does not pay for all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bus.client import Bus, Message, Request, Subscription, connect
    from bus.errors import (
        BusError,
        DeadlineExceeded,
        KeyFileError,
        LocalProtocolError,
        NotAuthorised,
        NotPresent,
        Overflow,
        Refused,
        RemoteProtocolError,
        Unreachable,
    )
    from bus.identity import Address, KeyPair

_HOME = {
    "client": ("Bus", "Message", "Request", "Subscription", "connect"),
    "errors": (
        "BusError", "DeadlineExceeded", "KeyFileError", "LocalProtocolError", "NotAuthorised",
        "NotPresent", "Overflow", "Refused", "RemoteProtocolError", "Unreachable",
    ),
    "identity": ("Address", "KeyPair"),
}  # fmt: skip
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Address", "Bus", "BusError", "DeadlineExceeded", "KeyFileError", "KeyPair", "LocalProtocolError",
    "Message", "NotAuthorised", "NotPresent", "Overflow", "Refused", "RemoteProtocolError", "Request",
    "Subscription", "Unreachable", "connect",
]  # fmt: skip


def __getattr__(name: str) -> object:
    module = _MODULE.get(name)
    if module is None:
        raise AttributeError(f"module 'bus' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"bus.{module}"), name)
    return value
