"""The door to the access list: one-time tokens, and until when anybody may knock. Times are Unix seconds.

A `Door` is an immutable snapshot, like an access list. Of a token only its hash is kept: who reads the file
cannot enrol with it.
"""

from __future__ import annotations

import hashlib
import hmac
import re

import msgspec
from msgspec import Struct

from bus import access
from bus.access import AccessError
from bus.identity import from_bytes
from bus.signals import AccessEntry, Opening, TokenInfo, TokenQuery

TOKEN_BYTES = 32  # of randomness in a token
MAX_TOKENS = 256  # that are alive at a time
MAX_TOKEN_SECONDS = 30 * 86_400.0
MAX_OPEN_SECONDS = 86_400.0
_ID_DIGITS = 12
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")  # TOKEN_BYTES in URL-safe base64
_NOBODY = from_bytes(bytes(32))  # stands for the key that a token will admit


def is_token(text: str) -> bool:
    """Whether `text` has the form of a token."""
    return _TOKEN.fullmatch(text) is not None


def _hash(token: str) -> str:
    # The token is random and long, so one round of a plain hash cannot be searched.
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


class StoredToken(Struct, frozen=True, forbid_unknown_fields=True):
    """What admits one key, as `roles`, until `expires`."""

    hash: str  # SHA-256 of the token, in hex
    name: str
    roles: list[str]
    expires: float

    @property
    def id(self) -> str:
        """For people to tell tokens apart."""
        return self.hash[:_ID_DIGITS]

    def info(self) -> TokenInfo:
        return TokenInfo(self.id, self.name, self.roles, self.expires)


class Door(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may ask to be admitted, and whom it admits unasked."""

    tokens: list[StoredToken] = []
    open_until: float = 0.0

    def live(self, now: float) -> list[StoredToken]:
        """The tokens that have not expired."""
        return [token for token in self.tokens if token.expires > now]

    def is_open(self, now: float) -> bool:
        """Whether an unknown key may knock."""
        return self.open_until > now or any(token.expires > now for token in self.tokens)

    def opened(self, opening: Opening, now: float) -> Door:
        """Open to requests without a token for `opening.seconds`; 0 closes. `AccessError` if too long."""
        seconds = opening.seconds
        if not 0 <= seconds <= MAX_OPEN_SECONDS:  # also NaN
            raise AccessError(f"enrolment: seconds: from 0 to {MAX_OPEN_SECONDS:.0f}")
        return Door(self.live(now), now + seconds if seconds else 0.0)

    def with_token(self, token: str, query: TokenQuery, now: float) -> tuple[Door, StoredToken]:
        """Let `token` admit one key as `query` says; `AccessError` when it must not."""
        if not is_token(token):
            raise AccessError("enrolment: a token is 43 characters of URL-safe base64")
        if not 0 < query.seconds <= MAX_TOKEN_SECONDS:
            raise AccessError(
                f"enrolment: seconds: more than 0, at most {MAX_TOKEN_SECONDS:.0f} (30 days)"
            )
        access.check(AccessEntry(_NOBODY, query.name, query.roles))
        live = self.live(now)
        if len(live) >= MAX_TOKENS:
            raise AccessError(f"enrolment: at most {MAX_TOKENS} tokens that wait to be used")
        stored = StoredToken(_hash(token), query.name, query.roles, now + query.seconds)
        return Door([*live, stored], self.open_until), stored

    def spend(self, token: str, now: float) -> tuple[Door, StoredToken] | None:
        """The door without `token`, and what it is good for; None when it is wrong, used or expired."""
        offered = _hash(token)
        found = None
        for stored in self.live(now):  # all of them: how long it takes tells nothing
            if hmac.compare_digest(stored.hash, offered):
                found = stored
        if found is None:
            return None
        return Door([t for t in self.live(now) if t is not found], self.open_until), found

    def with_back(self, stored: StoredToken) -> Door:
        """Take a spending back."""
        return Door([*self.tokens, stored], self.open_until)

    def without(self, token_id: str, now: float) -> Door:
        """The door without the token that people call `token_id`; `AccessError` when there is none."""
        kept = [token for token in self.live(now) if token.id != token_id]
        if len(kept) == len(self.live(now)):
            raise AccessError(f"enrolment: no token {token_id!r}; it was used or has expired")
        return Door(kept, self.open_until)


def decode(text: bytes) -> Door:
    """The door in an enrolment file; `AccessError` says what is wrong in it."""
    try:
        door = msgspec.json.decode(text, type=Door)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise AccessError(f"not an enrolment file: {error}") from None
    for token in door.tokens:
        access.check(AccessEntry(_NOBODY, token.name, token.roles))
        if re.fullmatch("[0-9a-f]{64}", token.hash) is None:
            raise AccessError(f"enrolment: not a SHA-256 in hex: {token.hash[:80]!r}")
    return door


def encode(door: Door) -> bytes:
    return msgspec.json.format(msgspec.json.encode(door), indent=2) + b"\n"
