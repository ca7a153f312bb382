"""A message bus on which a public key is the identity.

`connect` makes an asyncio program a participant, `bus.caller.Caller` a blocking one, and `bus.process`
makes a launched program a signal client. Names are loaded when first used, so that a command line that
needs one of them does not pay for all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bus.client import (
        Answer,
        Bus,
        Message,
        Page,
        Pulled,
        Record,
        Request,
        Stored,
        Subscription,
        connect,
    )
    from bus.errors import (
        BusError,
        DeadlineExceeded,
        KeyFileError,
        LocalProtocolError,
        NotAuthorised,
        NoTopic,
        NotPresent,
        Overflow,
        Refused,
        RemoteProtocolError,
        StoreFull,
        Unreachable,
    )
    from bus.identity import Address, KeyPair
    from bus.services import Service

_HOME = {
    "client": (
        "Answer", "Bus", "Message", "Page", "Pulled", "Record", "Request", "Stored", "Subscription",
        "connect",
    ),
    "errors": (
        "BusError", "DeadlineExceeded", "KeyFileError", "LocalProtocolError", "NoTopic", "NotAuthorised",
        "NotPresent", "Overflow", "Refused", "RemoteProtocolError", "StoreFull", "Unreachable",
    ),
    "identity": ("Address", "KeyPair"),
    "services": ("Service",),
}  # fmt: skip
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Address", "Answer", "Bus", "BusError", "DeadlineExceeded", "KeyFileError", "KeyPair",
    "LocalProtocolError", "Message", "NoTopic", "NotAuthorised", "NotPresent", "Overflow", "Page", "Pulled",
    "Record", "Refused", "RemoteProtocolError", "Request", "Service", "StoreFull", "Stored", "Subscription",
    "Unreachable", "connect",
]  # fmt: skip


def __getattr__(name: str) -> object:
    module = _MODULE.get(name)
    if module is None:
        raise AttributeError(f"module 'bus' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"bus.{module}"), name)
    return value
