"""Joining a bus from outside: the join string, and the one exchange by which a key asks to be admitted.

A join string is one word to copy: ``viscript-join:HOST:PORT/BROKER-KEY-IN-HEX/TOKEN``. It is a secret until
it was used or has expired: read it from a prompt, a pipe or a private file, never from an argument.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from bus import sockets, wire
from bus.egress import of_bus
from bus.enrolment import is_token
from bus.errors import BusError, NotAuthorised, RemoteProtocolError, Unreachable
from bus.identity import Address, KeyPair, from_hex, to_hex

PREFIX = "viscript-join:"
MAX_LENGTH = 512
_MAX_ANSWER = 64 << 10  # bytes
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]")
_HEX = re.compile(r"[0-9a-f]{64}")
_SECRET = re.compile(rf"{PREFIX}|/{_HEX.pattern}/", re.IGNORECASE)


class JoinError(BusError):
    """Not a join string; the message names the part that is wrong and never shows the token."""


@dataclass(frozen=True)
class Join:
    """All that a machine needs to enrol: where, whom to trust there, and what admits it."""

    address: Address
    token: str = field(repr=False)

    def __str__(self) -> str:
        return pack(self.address, self.token)


def pack(address: Address, token: str) -> str:
    """The join string; `JoinError` when the endpoint is none that another machine can dial."""
    where = address.endpoint.removeprefix("tcp://")
    _check_endpoint(where if where != address.endpoint else address.endpoint)
    if not is_token(token):
        raise JoinError("join string: the token is not one that a broker makes")
    return f"{PREFIX}{where}/{to_hex(address.key)}/{token}"


def looks_like_one(text: str) -> bool:
    """Whether somebody means a join string, whole or cut: then it is a secret and must not be shown."""
    return _SECRET.search(text) is not None


def parse(text: str) -> Join:
    """What is in a join string, with white space around it; `JoinError` names the wrong part."""
    text = text.strip()
    if len(text) > MAX_LENGTH:
        raise JoinError(f"join string: longer than {MAX_LENGTH} characters")
    if not text.startswith(PREFIX):
        raise JoinError(f"join string: does not begin with {PREFIX!r}")
    parts = text.removeprefix(PREFIX).split("/")
    if len(parts) != 3:
        problem = f"{len(parts)} parts between slashes, not 3 (endpoint, broker key, token)"
        raise JoinError(f"join string: {problem}; was it copied whole?")
    where, key, token = parts
    _check_endpoint(where)
    if _HEX.fullmatch(key) is None:
        raise JoinError(
            f"join string: broker key: {len(key)} characters, not 64 lower-case hex digits"
        )
    if not is_token(token):
        problem = f"{len(token)} characters, not 43 letters, digits, '-' and '_'"
        raise JoinError(f"join string: token: {problem}; was it copied whole?")
    return Join(Address(f"tcp://{where}", from_hex(key)), token)


def _check_endpoint(where: str) -> None:
    host, colon, port = where.rpartition(":")
    if not colon or _HOST.fullmatch(host) is None:
        raise JoinError(f"join string: endpoint: {where[:300]!r} is not HOST:PORT")
    if re.fullmatch(r"[1-9][0-9]{0,4}", port) is None or int(port) > 65_535:
        raise JoinError(f"join string: endpoint: port {port[:20]!r} is not from 1 to 65535")
    if host in {"0.0.0.0", "[::]"}:  # noqa: S104 - refused, not bound
        raise JoinError(f"join string: endpoint: no machine can reach {host}; name the host")


def enrol(
    address: Address, keypair: KeyPair, name: str = "", token: str = "", *, timeout: float = 5.0
) -> wire.Enrolled:
    """Ask that this key be admitted, with a token or, without, by an admin; blocks up to `timeout` seconds.

    The answer's `state` is ``accepted``, ``pending`` (ask again later) or ``rejected`` (of a token: it is
    wrong, used or has expired). A key that is allowed already is told ``accepted``.
    Raises `NotAuthorised` when the broker has nobody enrol now, `Unreachable` when none answers, and
    `RemoteProtocolError` when it refuses otherwise (429: too many wait; 500: it could not save).
    """
    context = sockets.new_context(egress=of_bus(address.endpoint))
    try:
        socket, monitor = sockets.dial(context, keypair, address, max_message=_MAX_ANSWER)
        socket.send(wire.encode(wire.Enrol(1, name[:64], token)), sockets.DONTWAIT)
        answer = _answer(socket, monitor, address, time.monotonic() + timeout)
    finally:
        context.destroy(linger=0)
    if isinstance(answer, wire.Enrolled):
        return answer
    if answer.num in {401, 403}:
        raise NotAuthorised(f"{address.endpoint}: {answer.msg}")
    raise RemoteProtocolError(answer.num, answer.err, f"{address.endpoint}: {answer.msg}")


def _answer(
    socket: sockets.Socket, monitor: sockets.Socket, address: Address, deadline: float
) -> wire.Enrolled | wire.Error:
    decode = wire.Decoder((wire.Enrolled, wire.Error)).decode
    while time.monotonic() < deadline:
        sockets.wait([socket, monitor], deadline - time.monotonic())
        ended = [event.kind for event in sockets.events(monitor)]
        if sockets.readable(socket):
            try:
                answer = decode(socket.recv_multipart(sockets.DONTWAIT)[0])
            except RemoteProtocolError as error:
                problem = f"{address.endpoint} does not speak SB/1: {error}"
                raise Unreachable(problem) from error
            assert isinstance(answer, wire.Enrolled | wire.Error)  # noqa: S101 - for the type
            return answer
        if sockets.HANDSHAKE_REFUSED in ended:
            problem = "does not know this key and has nobody enrol now; ask its admin for a token"
            raise NotAuthorised(f"the broker at {address.endpoint} {problem}")
        if any(
            kind & (sockets.DISCONNECTED | sockets.CLOSED | sockets.HANDSHAKE_FAILED)
            for kind in ended
        ):
            break
    raise Unreachable(f"no broker answers at {address.endpoint}")
