"""What name servers send back: whether it answers the question, and can be read.

It is hostile: whoever has a name decides what is answered about it.
"""

import struct
from typing import Final

import dns.exception
import dns.message

# The parser's time grows with the square of an answer. Some 250 addresses are in one of this size.
MAX_ANSWER: Final = 4096  # bytes

# Besides its own, what dnspython's parser lets out of messages that are wrong enough.
UNREADABLE: Final = (dns.exception.DNSException, ValueError, IndexError, KeyError, struct.error)


class Unusable(Exception):
    """The server cannot or will not tell; another may. The text says why."""


def read(data: bytes, asked: dns.message.QueryMessage) -> dns.message.QueryMessage | None:
    """The answer to the question, as far as it came if it is truncated; None for none; raises Unusable."""
    if len(data) > MAX_ANSWER:
        raise Unusable("an answer that is too large")
    try:
        message = _parse(data)
        if not isinstance(message, dns.message.QueryMessage) or not asked.is_response(message):
            return None
    except UNREADABLE:
        # Whether it was the server's: an id that is ours and a body that is nonsense.
        if data[:2] != struct.pack(">H", asked.id):
            return None
        raise Unusable("an answer that cannot be read") from None
    return message


def _parse(data: bytes) -> dns.message.Message:
    try:
        return dns.message.from_wire(data, ignore_trailing=True, raise_on_truncation=True)
    except dns.message.Truncated as cut:
        partly: dns.message.Message = cut.message()  # type: ignore[no-untyped-call]
        return partly
