"""When two ends agree on keys: beginning, answering, retransmission, rekeying, and who gives way.

The end that answered uses nothing of the new keys until a frame under them has come: a first message
that somebody recorded and plays again leads to an answer and to nothing else. Pure: the clock and the
randomness are passed in. Specified in docs/protocol/mesh.md, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from bus.identity import to_bytes
from nodes.handshake import Answer, HandshakeError, Initiator, Keys, Offer, Responder
from nodes.sealing import Seal

if TYPE_CHECKING:
    from collections.abc import Callable

    from nodes.links.base import Packet
    from nodes.sealing import Cipher

FIRST_RETRY: Final = 0.25  # s, doubled each time
LAST_RETRY: Final = 2.0  # s
MAX_TRIES: Final = 6  # of the same message; then a new one is made
STANDS: Final = 3  # tries during which the smaller key's handshake stands against the other's
REKEY_AFTER: Final = 120.0  # s, as WireGuard does
REKEY_LATER: Final = 135.0  # s: the end with the larger key waits, so that not both begin
REKEY_BYTES: Final = 1 << 36
MAX_AGE: Final = 300.0  # s: older keys are not used, whatever stands in the way of new ones
PENDING_FOR: Final = 60.0  # s that an answer waits for a frame under its keys
BURST, PER_SECOND = 5.0, 1.0  # handshake messages of one route that are worth a millisecond of work
CAPABILITIES: Final = ["tunnel"]  # beyond what version 2 of the protocol asks of everybody
MAX_ROUTES: Final = 8  # for which that is counted: as many as lead to one peer
_OFFER, _ANSWER = b"\x01", b"\x02"
_Kept = TypeVar("_Kept")


@dataclass(frozen=True, slots=True)
class Agreed:
    """Keys to use from now on. Without `resumed` the session begins anew, all counters at 1."""

    number: int
    epoch: int
    resumed: bool
    keys: Keys
    capabilities: frozenset[str] = frozenset()  # of the peer

    def seals(self) -> tuple[Seal, Seal]:
        """For what goes out and for what comes."""
        keys = self.keys
        return (
            Seal(keys.cipher, keys.out, self.number),
            Seal(keys.cipher, keys.into, self.number),
        )


@dataclass(slots=True)
class Pending:
    """Our answer, until a frame shows that the peer has it."""

    first: bytes
    answer: bytes
    agreed: Agreed
    into: Seal
    until: float


class Keying:
    """The handshakes with one peer. `agreed` is what both ends have now."""

    def __init__(
        self,
        own: str,
        peer: str,
        secret: bytes,
        random: Callable[[int], bytes],
        ciphers: list[Cipher],
    ) -> None:
        self.agreed: Agreed | None = None
        self.pending: dict[str, Pending] = {}  # by the route on which the first message came
        self.tries = 0  # of the message that is on the way
        self.refused = 0  # messages that were not worth an answer
        self._own_stands = own < peer
        self._rekey_after = REKEY_AFTER if self._own_stands else REKEY_LATER
        self._peer = to_bytes(peer)
        self._secret, self._random, self._ciphers = secret, random, ciphers
        self._mine: Initiator | None = None
        self._retry_at = 0.0
        self._since = 0.0  # when `agreed` was made
        self._base = 0  # the newest epoch that the peer is known to have taken too
        self._tokens: dict[str, tuple[float, float]] = {}  # by route: how many, and when

    @property
    def capabilities(self) -> frozenset[str]:
        """Of the peer, beyond what the protocol's version asks for."""
        return self.agreed.capabilities if self.agreed is not None else frozenset()

    @property
    def running(self) -> bool:
        return self._mine is not None

    @property
    def next_timer(self) -> float:
        return self._retry_at if self._mine is not None else float("inf")

    def begin(self, now: float) -> None:
        """Start a handshake, unless one is running; `due` says what to send."""
        if self._mine is None:
            self.tries = 0
            self._make(now)

    def due(self, now: float) -> bytes | None:
        """The message to send now, the first time or again."""
        if self._mine is None or now < self._retry_at:
            return None
        if self.tries >= MAX_TRIES:
            self._make(now)
        pause = min(FIRST_RETRY * 2**self.tries, LAST_RETRY)
        self.tries += 1
        self._retry_at = now + pause
        return _OFFER + self._mine.message

    def stop(self) -> None:
        """Forget keys and handshakes."""
        self.agreed = self._mine = None
        self.pending.clear()

    def wants_new(self, now: float, sealed: int) -> bool:
        """Whether the keys have been used enough, by age or by `sealed` bytes."""
        return self.agreed is not None and (
            now - self._since >= self._rekey_after or sealed >= REKEY_BYTES
        )

    def too_old(self, now: float) -> bool:
        return self.agreed is not None and now - self._since >= MAX_AGE

    def message(self, payload: bytes, now: float, route: str = "") -> bytes | Agreed | None:
        """A HANDSHAKE frame came: what to answer on the same way, or the keys to use from now on.

        What waits and what is worth work is counted for each route: somebody on one who plays old
        messages, or sends nonsense, shall not be in the way of a handshake on another.
        """
        try:
            if payload[:1] == _OFFER:
                return self._offered(payload[1:], now, route)
            if payload[:1] == _ANSWER and self._mine is not None and self._worth(now, route):
                return self._answered(self._mine, payload[1:], now)
        except HandshakeError:
            self.refused += 1
        return None

    def proved(self) -> None:
        """The peer has used the keys that it agreed to."""
        if self.agreed is not None:
            self._base = self.agreed.epoch

    def confirmed_by(
        self, first: int, packet: Packet, into: memoryview, now: float
    ) -> Agreed | None:
        """The keys of an answer of ours, if the frame is sealed under them: they hold from now on."""
        lane, epoch, counter, sealed = packet.lane, packet.epoch, packet.counter, packet.payload
        for pending in self.pending.values():
            if epoch == pending.agreed.epoch and pending.into.open(
                first, lane, epoch, counter, sealed, into
            ):
                self._settle(pending.agreed, now)
                self.proved()
                return pending.agreed
        return None

    def expire(self, now: float) -> None:
        for route in [key for key, pending in self.pending.items() if now >= pending.until]:
            del self.pending[route]

    def _make(self, now: float) -> None:
        """A new first message. Its number and epoch are those of the session, if there is one."""
        agreed = self.agreed
        if agreed is not None:
            number, epoch = agreed.number, (agreed.epoch + 1) & 255
        else:
            drawn = self._random(9)
            number = int.from_bytes(drawn[:8]) >> 1
            epoch = drawn[8]
        offer = Offer(number, epoch, agreed is not None, list(self._ciphers), CAPABILITIES)
        self._mine = Initiator(self._secret, self._peer, offer, self._random(32))
        self.tries = 0
        self._retry_at = now

    def _offered(self, message: bytes, now: float, route: str) -> bytes | None:
        pending = self.pending.get(route)
        if pending is not None and pending.first == message:
            return pending.answer  # ours was lost
        if self._mine is not None and self._own_stands and self.tries <= STANDS:
            return None  # both began at once
        if not self._worth(now, route):
            return None
        responder = Responder(self._secret, message, self._random(32))
        if responder.peer != self._peer:
            raise HandshakeError("the handshake of another node than the route's")
        offer, agreed = responder.offer, self.agreed
        resumed = (
            offer.resume
            and agreed is not None
            and offer.session == agreed.number
            and 0 < (offer.epoch - self._base) & 255 < 128  # some may have come to nothing
        )
        cipher = responder.choose(self._ciphers)
        answer, keys = responder.answer(Answer(resumed, cipher, CAPABILITIES))
        can = frozenset(offer.capabilities)
        made = Agreed(offer.session, offer.epoch, resumed, keys, can)
        into = made.seals()[1]
        pending = Pending(message, _ANSWER + answer, made, into, now + PENDING_FOR)
        _put(self.pending, route, pending)
        return pending.answer

    def _answered(self, mine: Initiator, message: bytes, now: float) -> Agreed:
        keys, answer = mine.finish(message)
        if answer.resumed and not mine.offer.resume:
            raise HandshakeError("the peer resumes a session that was not offered")
        offer = mine.offer
        can = frozenset(answer.capabilities)
        agreed = Agreed(offer.session, offer.epoch, answer.resumed, keys, can)
        self._settle(agreed, now)
        if not agreed.resumed:
            self.proved()
        return agreed

    def _settle(self, agreed: Agreed, now: float) -> None:
        self.agreed, self._since = agreed, now
        self._mine = None
        self.pending.clear()

    def _worth(self, now: float, route: str) -> bool:
        """Whether another handshake message may be worked on: each costs about a millisecond."""
        tokens, at = self._tokens.get(route, (BURST, now))
        tokens = min(BURST, tokens + (now - at) * PER_SECOND)
        enough = tokens >= 1
        self.refused += not enough
        _put(self._tokens, route, (tokens - enough, now))
        return enough


def _put(kept: dict[str, _Kept], route: str, value: _Kept) -> None:
    """Keep something for a route; the one that was silent longest gives way."""
    kept.pop(route, None)
    kept[route] = value
    if len(kept) > MAX_ROUTES:
        del kept[next(iter(kept))]
