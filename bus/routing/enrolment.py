"""ENROL, and the admin's side of it: how a key comes into the access list from outside.

While the door is open the handshake lets unknown keys in, a bounded number at a time. Such a stranger says
ENROL, hears what became of it and is cut; whatever else it says is refused, and what it says after that is
not even answered. Who waits for an admin is remembered in memory only: it asks again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from bus import signals, wire
from bus.access import AccessError, AccessList
from bus.enrolment import Door, StoredToken
from bus.errors import RemoteProtocolError
from bus.identity import fingerprint
from bus.routing.parts import Answer, Handler, Part, Question
from bus.routing.peers import Connection
from bus.routing.sessions import Sessions
from bus.signals import AccessEntry

STAY = 10.0  # seconds within which a stranger must have spoken, or it is cut
MAX_STRANGERS = 64  # let in within `STAY`, so hardly more at a time
MAX_FROM_ADDRESS = 32  # of them from one address
MAX_PENDING = 64
WAIT = 86_400.0  # seconds for which one who waits is remembered
_ENROL = wire.encode(wire.Enrol(0))[:4]
_MAX_REMEMBERED = 256  # refused keys, connections that had their answer


class Keeper(Protocol):
    """Keeps the door for good."""

    def read(self) -> Door:
        """`AccessError` when what is kept cannot be used."""
        ...

    def change(self, act: Callable[[Door], Door]) -> None:
        """Replace the door by what `act` makes of it; `OSError`."""
        ...


class Enrolment(Part):
    """Who may knock, who waits, who was turned away. `now` is monotonic seconds."""

    def __init__(
        self,
        sessions: Sessions,
        change_access: Callable[[AccessList], None],
        keeper: Keeper,
        new_token: Callable[[], str],
    ) -> None:
        self._sessions = sessions
        self._change_access = change_access  # saves, swaps in; may raise OSError
        self._keeper = keeper
        self._new_token = new_token
        self._pending: dict[str, signals.Enrolment] = {}  # by key, oldest first
        self._rejected: dict[str, None] = {}
        self._let_in: deque[tuple[float, str]] = deque()  # when, from which address
        self._decode = wire.Decoder(wire.FROM_CLIENT).decode
        self._answered: dict[str, None] = {}  # proofs of the connections that are being cut

    # Strangers.

    def admits(self, address: str, now: float) -> bool:
        """Whether the handshake lets a key in that is not on the access list."""
        try:
            if not self._keeper.read().is_open(self._sessions.clock()):
                return False
        except AccessError:
            self._sessions.denied["enrolment_file"] += 1
            return False
        while self._let_in and self._let_in[0][0] <= now - STAY:
            self._let_in.popleft()
        from_there = sum(1 for _, other in self._let_in if other == address)
        if len(self._let_in) >= MAX_STRANGERS or from_there >= MAX_FROM_ADDRESS:
            self._sessions.denied["strangers"] += 1
            return False
        self._let_in.append((now, address))
        return True

    def meets(self, connection: Connection, head: bytes) -> bool:
        """One message of a connection that is no session; False when it does not concern us.

        It does when the key is not allowed, whatever it says, and when it says ENROL.
        """
        stranger = connection.key not in self._sessions.access
        if not stranger and head[:4] != _ENROL:
            return False
        if connection.user in self._answered:  # it is to be cut in a moment: not heard
            if stranger:  # nor waited for, whether it has read its answer or not
                self._sessions.cut(connection)
            return True
        _remember(self._answered, connection.user)
        try:
            command = self._decode(head)
            if not isinstance(command, wire.Enrol):
                problem = "this key is not on the access list; it may ask to be (ENROL)"
                raise RemoteProtocolError(401, "key_unknown", problem)
        except RemoteProtocolError as error:
            self._sessions.refuse(connection, error)
            return True
        try:
            state, roles = self._enrol(connection.key, command)
        except RemoteProtocolError as error:
            self._sessions.refuse(connection, error, ref=command.id)
            return True
        answer = wire.Enrolled(command.id, state, fingerprint(connection.key), roles)
        self._sessions.dismiss(connection, wire.encode(answer))
        return True

    def _enrol(self, key: str, command: wire.Enrol) -> tuple[str, list[str]]:
        """What became of it, and the roles."""
        entry = self._sessions.access.get(key)
        if entry is not None:  # accepted before: it asks how it stands
            return "accepted", entry.roles
        try:
            if command.token:
                return self._redeem(key, printable(command.name), command.token)
            return self._ask(key, printable(command.name)), []
        except (AccessError, OSError) as error:
            self._sessions.denied["enrolment_file"] += 1
            problem = "the broker could not save it; try again, or tell its admin"
            raise RemoteProtocolError(500, "internal", problem) from error

    def _redeem(self, key: str, name: str, token: str) -> tuple[str, list[str]]:
        stored = self._spend(token)
        if stored is None:
            self._sessions.denied["token"] += 1
            return "rejected", []
        entry = AccessEntry(key, stored.name or name, stored.roles)
        try:
            self._change_access(self._sessions.access.with_entry(entry))
        except (AccessError, OSError):
            self._keeper.change(lambda door: door.with_back(stored))
            raise
        self._pending.pop(key, None)
        self._rejected.pop(key, None)
        return "accepted", entry.roles

    def _spend(self, token: str) -> StoredToken | None:
        """Make the token void on disk, before anybody is admitted by it."""
        found: list[StoredToken] = []

        def take(door: Door) -> Door:
            spent = door.spend(token, self._sessions.clock())
            if spent is None:
                raise _Wrong
            found.append(spent[1])
            return spent[0]

        try:
            self._keeper.change(take)
        except _Wrong:
            return None
        return found[0]

    def _ask(self, key: str, name: str) -> str:
        now = self._sessions.clock()
        self._tidy()
        if key in self._pending:
            return "pending"
        if key in self._rejected:
            return "rejected"
        if not self._keeper.read().open_until > now:
            raise RemoteProtocolError(
                401, "key_unknown", "a token is needed: enrolment is not open"
            )
        if len(self._pending) >= MAX_PENDING:
            problem = f"{MAX_PENDING} keys wait for an admin already; try again later"
            raise RemoteProtocolError(429, "limit", problem)
        self._pending[key] = signals.Enrolment(key, name, fingerprint(key), now)
        return "pending"

    def _tidy(self) -> None:
        """Forget who waits no more: admitted otherwise, or for too long."""
        oldest = self._sessions.clock() - WAIT
        access = self._sessions.access
        gone = [k for k, asked in self._pending.items() if k in access or asked.since < oldest]
        for key in gone:
            del self._pending[key]

    # The admin's side.

    @property
    def handlers(self) -> Mapping[type[wire.Command], Handler]:
        return {wire.Enrol: self._on_enrol_in_session}

    @property
    def answers(self) -> Mapping[str, Answer]:
        return {
            signals.ENROL_LIST: self._list,
            signals.ENROL_OPEN: self._open,
            signals.ENROL_TOKEN: self._make_token,
            signals.ENROL_ACCEPT: self._accept,
            signals.ENROL_REJECT: self._reject,
        }

    def _on_enrol_in_session(self, *_: object) -> None:
        raise RemoteProtocolError(409, "conflict", "this key is allowed already")

    def _list(self, _question: Question) -> object:
        self._tidy()
        now = self._sessions.clock()
        door = self._keeper.read()
        return signals.Enrolments(
            pending=list(self._pending.values()),
            tokens=[token.info() for token in door.live(now)],
            open_until=door.open_until if door.open_until > now else 0.0,
        )

    def _open(self, question: Question) -> object:
        opening = signals.unpack(question.body, signals.Opening)
        self._keeper.change(lambda door: door.opened(opening, self._sessions.clock()))
        self._rejected.clear()
        return signals.Done()

    def _make_token(self, question: Question) -> object:
        query = signals.unpack(question.body, signals.TokenQuery)
        token, made = self._new_token(), []

        def put(door: Door) -> Door:
            changed, stored = door.with_token(token, query, self._sessions.clock())
            made.append(stored)
            return changed

        self._keeper.change(put)
        return signals.Token(token, made[0].expires)

    def _accept(self, question: Question) -> object:
        answer = signals.unpack(question.body, signals.EnrolmentAnswer)
        asked = self._who_waits(answer.key)
        entry = AccessEntry(asked.key, answer.name or asked.name, answer.roles)
        self._change_access(self._sessions.access.with_entry(entry))
        self._pending.pop(asked.key, None)
        return signals.Done()

    def _reject(self, question: Question) -> object:
        asked = self._who_waits(signals.unpack(question.body, signals.EnrolmentAnswer).key)
        del self._pending[asked.key]
        _remember(self._rejected, asked.key)
        return signals.Done()

    def _who_waits(self, key: str) -> signals.Enrolment:
        self._tidy()
        asked = self._pending.get(key)
        if asked is None:
            raise AccessError(f"enrolment: the key {key[:80]!r} does not wait to be admitted")
        return asked


class _Wrong(Exception):
    """The token is not one of ours."""


def printable(name: str) -> str:
    """What a stranger calls itself, fit to be shown: no control characters, no line breaks."""
    return "".join(c for c in name if c.isprintable()).strip()[:64]


def _remember(among: dict[str, None], what: str) -> None:
    if len(among) >= _MAX_REMEMBERED:
        del among[next(iter(among))]
    among[what] = None
