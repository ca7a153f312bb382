"""When two ends agree on keys: beginning, answering, retransmission, rekeying, and who gives way.

The end that answered uses nothing of the new keys until a frame under them has come: a first message
that somebody recorded and plays again leads to an answer and to nothing else. Pure: the clock and the
randomness are passed in. Specified in docs/protocol/mesh.md, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bus.identity import to_bytes
from nodes.handshake import Answer, HandshakeError, Initiator, Keys, Offer, Responder
from nodes.sealing import Seal

if TYPE_CHECKING:
    from collections.abc import Callable

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
BURST, PER_SECOND = 5.0, 1.0  # handshake messages of one peer that are worth a millisecond of work
_OFFER, _ANSWER = b"\x01", b"\x02"


@dataclass(frozen=True, slots=True)
class Agreed:
    """Keys to use from now on. Without `resumed` the session begins anew, all counters at 1."""

    number: int
    epoch: int
    resumed: bool
    keys: Keys

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
        self.pending: Pending | None = None
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
        self._tokens = BURST
        self._tokens_at = 0.0

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
        self.agreed = self.pending = self._mine = None

    def wants_new(self, now: float, sealed: int) -> bool:
        """Whether the keys have been used enough, by age or by `sealed` bytes."""
        return self.agreed is not None and (
            now - self._since >= self._rekey_after or sealed >= REKEY_BYTES
        )

    def too_old(self, now: float) -> bool:
        return self.agreed is not None and now - self._since >= MAX_AGE

    def message(self, payload: bytes, now: float) -> bytes | Agreed | None:
        """A HANDSHAKE frame came: what to answer on the same way, or the keys to use from now on."""
        try:
            if payload[:1] == _OFFER:
                return self._offered(payload[1:], now)
            if payload[:1] == _ANSWER and self._mine is not None and self._worth(now):
                return self._answered(self._mine, payload[1:], now)
        except HandshakeError:
            self.refused += 1
        return None

    def proved(self) -> None:
        """The peer has used the keys that it agreed to."""
        if self.agreed is not None:
            self._base = self.agreed.epoch

    def confirmed(self, pending: Pending, now: float) -> Agreed:
        """A frame under the pending keys came: they hold."""
        self._settle(pending.agreed, now)
        self.proved()
        return pending.agreed

    def expire(self, now: float) -> None:
        if self.pending is not None and now >= self.pending.until:
            self.pending = None

    def _make(self, now: float) -> None:
        """A new first message. Its number and epoch are those of the session, if there is one."""
        agreed = self.agreed
        if agreed is not None:
            offer = Offer(agreed.number, (agreed.epoch + 1) & 255, True, list(self._ciphers))  # noqa: FBT003
        else:
            drawn = self._random(9)
            number = int.from_bytes(drawn[:8]) >> 1
            offer = Offer(number, drawn[8], False, list(self._ciphers))  # noqa: FBT003
        self._mine = Initiator(self._secret, self._peer, offer, self._random(32))
        self.tries = 0
        self._retry_at = now

    def _offered(self, message: bytes, now: float) -> bytes | None:
        pending = self.pending
        if pending is not None and pending.first == message:
            return pending.answer  # ours was lost
        if self._mine is not None and self._own_stands and self.tries <= STANDS:
            return None  # both began at once
        if not self._worth(now):
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
        answer, keys = responder.answer(Answer(resumed, cipher))
        made = Agreed(offer.session, offer.epoch, resumed, keys)
        self.pending = Pending(message, _ANSWER + answer, made, made.seals()[1], now + PENDING_FOR)
        return self.pending.answer

    def _answered(self, mine: Initiator, message: bytes, now: float) -> Agreed:
        keys, answer = mine.finish(message)
        if answer.resumed and not mine.offer.resume:
            raise HandshakeError("the peer resumes a session that was not offered")
        offer = mine.offer
        agreed = Agreed(offer.session, offer.epoch, answer.resumed, keys)
        self._settle(agreed, now)
        if not agreed.resumed:
            self.proved()
        return agreed

    def _settle(self, agreed: Agreed, now: float) -> None:
        self.agreed, self._since = agreed, now
        self._mine = self.pending = None

    def _worth(self, now: float) -> bool:
        """Whether another handshake message may be worked on: each costs about a millisecond."""
        self._tokens = min(BURST, self._tokens + (now - self._tokens_at) * PER_SECOND)
        self._tokens_at = now
        if self._tokens < 1:
            self.refused += 1
            return False
        self._tokens -= 1
        return True
