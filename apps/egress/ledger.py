"""What each node's key may use of an exit, and has used: connections, rate, volume.

Who asks is known by its node's key, which the session proved. Keys that only come and go are forgotten
when there are many; those that hold something, or have used up a part of their volume, last. No clock:
`now` is in seconds.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from apps.egress.bucket import Bucket
from bus.identity import is_key

MAX_ACCOUNTS: Final = 4096

_UNITS: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_PERIODS: Final = {"hour": 3600.0, "day": 86_400.0, "week": 604_800.0, "month": 2_592_000.0}
_AMOUNT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kMGT]?)")


class LimitError(ValueError):
    """A limit is not [KEY,]NAME=VALUE[,…]."""


@dataclass(frozen=True)
class Limits:
    """What one key may use; 0 stands for no limit."""

    connections: int = 512  # at once
    associations: int = 32  # of datagrams, at once
    rate: int = 0  # bytes/s, each way
    volume: int = 0  # bytes, both ways together, in `period`
    period: float = 86_400.0  # seconds

    @classmethod
    def parse(cls, text: str, base: "Limits | None" = None) -> tuple[str | None, "Limits"]:
        """Read `connections=64,rate=10M,volume=50G/day`, with a key before it for that key only.

        What is not named is as in `base`. Raises LimitError.
        """
        key: str | None = None
        first, _, rest = text.partition(",")
        if is_key(first):
            key, text = first, rest
        found = base or cls()
        for part in text.split(","):
            found = _with(found, part, text)
        return key, found


def _with(limits: Limits, part: str, text: str) -> Limits:
    name, equals, value = part.partition("=")
    period = limits.period
    if name == "volume":
        value, slash, word = value.partition("/")
        if slash and word not in _PERIODS:
            raise LimitError(f"limit {text!r}: a volume is for an {', '.join(_PERIODS)}: 50G/day")
        period = _PERIODS.get(word, period)
    amount = _AMOUNT.fullmatch(value)
    if not equals or name not in {"connections", "associations", "rate", "volume"}:
        raise LimitError(
            f"limit {text!r}: {part!r} is none of connections=N, associations=N, rate=BYTES, volume=BYTES/day"
        )
    if amount is None:
        raise LimitError(f"limit {text!r}: {value!r} is no number such as 64, 10M or 1.5G")
    number = int(float(amount[1]) * _UNITS[amount[2]])
    return replace(limits, **{name: number, "period": period})  # type: ignore[arg-type]


@dataclass
class Account:
    """One key: what it holds now, what it has used since it was first seen, what is left."""

    key: str
    limits: Limits
    since: float  # when it was first seen
    connections: int = 0  # open now, or being dialled
    associations: int = 0  # open now
    opened: int = 0  # connections that were, since then
    refused: dict[str, int] = field(default_factory=dict)  # how often, by reason
    bytes_in: int = 0  # from targets to the key
    bytes_out: int = 0  # from the key to targets
    used: int = 0  # bytes of the volume, in the period that began at `began`
    began: float = 0.0
    inward: Bucket = field(init=False)  # its rate, shared by all it does: from targets
    outward: Bucket = field(init=False)  # to targets

    def __post_init__(self) -> None:
        self.inward = Bucket(self.limits.rate, self.since)
        self.outward = Bucket(self.limits.rate, self.since)

    @property
    def limited(self) -> bool:
        """Whether its bytes must be watched while they pass."""
        return bool(self.limits.rate or self.limits.volume)

    def spend(self, bytes_in: int, bytes_out: int, now: float) -> None:
        """So much went through."""
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out
        self._turn(now)
        self.used += bytes_in + bytes_out

    def exhausted(self, now: float) -> str | None:
        """Say what is used up: nothing more may go through until its period is over."""
        self._turn(now)
        volume = self.limits.volume
        if not volume or self.used < volume:
            return None
        left = self.began + self.limits.period - now
        return f"its volume of {volume} bytes is used up for another {left:.0f} s"

    @property
    def idle(self) -> bool:
        return not self.connections and not self.associations

    def _turn(self, now: float) -> None:
        if not self.used or now >= self.began + self.limits.period:
            self.used, self.began = 0, now


class NotAdmitted(Exception):
    """A key may not have more; the text says of what, `reason` is one word for statistics."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Ledger:
    """The accounts of all keys, and what all of them together may have."""

    def __init__(
        self,
        default: Limits | None = None,
        special: Mapping[str, Limits] | None = None,
        *,
        connections: int = 1024,
        associations: int = 256,
    ) -> None:
        self.accounts: dict[str, Account] = {}
        self.limits = Limits() if default is None else default
        self._special = dict(special or {})
        self._connections = connections
        self._associations = associations
        self.connections = 0  # of all, now
        self.associations = 0

    @property
    def load(self) -> float:
        """How much of what may be had is taken, 0 to 1."""
        shares = [
            self.connections / self._connections if self._connections else 0.0,
            self.associations / self._associations if self._associations else 0.0,
        ]
        return min(1.0, max(shares))

    def account(self, key: str, now: float) -> Account:
        """The account of a key; a new one if it has none."""
        found = self.accounts.pop(key, None)
        if found is None:
            if len(self.accounts) >= MAX_ACCOUNTS:
                self._forget()
            found = Account(key, self._special.get(key, self.limits), now)
        self.accounts[key] = found  # to the end: used last
        return found

    def connect(self, key: str, now: float) -> Account:
        """One more connection; raises NotAdmitted. Give it back with `disconnect`."""
        account = self._admitted(key, now)
        limit = account.limits.connections
        if limit and account.connections >= limit:
            raise self._refused(account, "connections", f"it has {limit} connections already")
        if self.connections >= self._connections:
            raise self._refused(account, "busy", "the exit is busy")
        account.connections += 1
        self.connections += 1
        return account

    def disconnect(self, account: Account) -> None:
        account.connections -= 1
        self.connections -= 1

    def associate(self, key: str, now: float) -> Account:
        """One more association of datagrams; raises NotAdmitted. Give it back with `dissociate`."""
        account = self._admitted(key, now)
        limit = account.limits.associations
        if limit and account.associations >= limit:
            raise self._refused(account, "associations", f"it has {limit} associations already")
        if self.associations >= self._associations:
            raise self._refused(account, "busy", "the exit is busy")
        account.associations += 1
        self.associations += 1
        return account

    def dissociate(self, account: Account) -> None:
        account.associations -= 1
        self.associations -= 1

    def restore(self, key: str, used: int, began: float, now: float) -> None:
        """What a key had used of its volume, by what was kept; `began` may be before the clock did."""
        account = self.account(key, now)
        if began <= now < began + account.limits.period:
            account.used, account.began = used, began

    def note(self, account: Account, reason: str) -> None:
        """Count something that was not done for it."""
        account.refused[reason] = account.refused.get(reason, 0) + 1

    def _admitted(self, key: str, now: float) -> Account:
        account = self.account(key, now)
        why = account.exhausted(now)
        if why is not None:
            raise self._refused(account, "volume", why)
        return account

    def _refused(self, account: Account, reason: str, text: str) -> NotAdmitted:
        self.note(account, reason)
        return NotAdmitted(reason, text)

    def _forget(self) -> None:
        """Make room: who was here longest ago and holds nothing goes, but first who owes nothing."""
        idle = [account for account in self.accounts.values() if account.idle]
        owing = [each for each in idle if each.limits.volume and each.used]
        free = [each for each in idle if not (each.limits.volume and each.used)]
        for account in (free or owing)[: MAX_ACCOUNTS // 8]:
            del self.accounts[account.key]
