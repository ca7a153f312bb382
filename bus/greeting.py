"""HELLO as this client says it: its name, what it can, its credit and its will."""

from __future__ import annotations

from bus import subjects, wire
from bus.errors import LocalProtocolError
from bus.sending import Outgoing, check_bytes
from bus.version import VERSION

MAX_WILL = 64 << 10  # bytes
# Deliveries that may be under way to us at once; given back, half by half, as they leave the socket. A
# process that is stopped thereby costs the broker and the network no more than this.
CREDIT = wire.Grant(m=65_536, b=16 << 20)


def hello(name: str, will: tuple[str, bytes] | None) -> Outgoing:
    subject, body = will or (None, None)
    if subject is not None and not subjects.is_subject(subject):
        raise LocalProtocolError(f"the will's subject is not one: {subject!r}")
    if body is not None:
        check_bytes("the will", subject or "", body)
    if body is not None and len(body) > MAX_WILL:
        raise LocalProtocolError(f"a will of {len(body)} bytes, at most {MAX_WILL}")
    command = wire.Hello(name[:64], "python", VERSION, list(wire.CAPS), CREDIT, subject)
    return Outgoing(wire.encode(command), body)
