"""The requests that the broker answers itself, on subjects under `$SYS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from bus import signals, wire
from bus.access import AccessError, AccessList
from bus.errors import Refused, RemoteProtocolError
from bus.routing import pages
from bus.routing.parts import Answer, Part, Question
from bus.routing.sessions import Sessions


class System(Part):
    """Who may answer what: its own answers and those that other parts bring."""

    def __init__(self, sessions: Sessions, change_access: Callable[[AccessList], None]) -> None:
        self._sessions = sessions
        self._change_access = change_access  # saves, swaps in; may raise OSError
        self._known: dict[str, Answer] = {}

    def learn(self, answers: Mapping[str, Answer]) -> None:
        self._known.update(answers)

    def ask(self, subject: str, question: Question) -> None:
        """Answer, now or later; `RemoteProtocolError` tells the requester what is wrong."""
        answer = self._known.get(subject)
        if answer is None:
            problem = f"the broker does not serve {subject}"
            raise RemoteProtocolError(404, "no_responders", problem)
        try:
            value = answer(question)
        except (Refused, AccessError) as error:
            raise RemoteProtocolError(400, "bad_body", str(error)) from None
        except OSError as error:
            problem = f"the access list was not saved: {error}"
            raise RemoteProtocolError(500, "internal", problem) from None
        if value is not None:
            self._sessions.answer(question.session, question.ref, value)

    @property
    def answers(self) -> Mapping[str, Answer]:
        return {
            signals.SESSIONS: self._list_sessions,
            signals.INFO: self._info,
            signals.KICK: self._kick,
            signals.ACCESS_PUT: self._put_access,
            signals.ACCESS_REMOVE: self._remove_access,
            signals.ACCESS_LIST: self._list_access,
        }

    def _list_sessions(self, question: Question) -> object:
        body = question.body
        query = signals.unpack(body, signals.SessionsQuery) if body else signals.SessionsQuery()
        # Both in the order in which they were opened, which is that of their numbers.
        known = self._sessions if query.key is None else self._sessions.of(query.key)
        found = [session for session in known if session.number > query.after]
        page = found[: query.limit]
        return signals.Sessions([session.info() for session in page], len(found) - len(page))

    def _list_access(self, question: Question) -> object:
        query = pages.asked(question.body, signals.PageQuery)
        entries = ((f"{entry.name} {entry.key}", entry) for entry in self._sessions.access.entries)
        return signals.AccessEntries(*pages.page(entries, query, self._sessions.limits.payload))

    def _info(self, _question: Question) -> object:
        return msgspec.structs.replace(self._sessions.info, sessions=len(self._sessions))

    def _kick(self, question: Question) -> object:
        """End sessions; a will of theirs fires. Who kicks itself is not answered."""
        query = signals.unpack(question.body, signals.KickQuery)
        if query.key is None and query.session is None:
            raise RemoteProtocolError(400, "bad_body", "KickQuery: name a key or a session")
        found = [
            session
            for session in self._sessions
            if query.key in {None, session.key} and query.session in {None, session.number}
        ]
        reason = f"kicked: {query.reason}" if query.reason else "kicked"
        for session in found:
            self._sessions.close(session, 403, wire.clip(reason, 255))
        return signals.Kicked(len(found))

    def _put_access(self, question: Question) -> object:
        entry = signals.unpack(question.body, signals.AccessEntry)
        self._change_access(self._sessions.access.with_entry(entry))
        return signals.Done()

    def _remove_access(self, question: Question) -> object:
        key = signals.unpack(question.body, signals.AccessKey).key
        self._change_access(self._sessions.access.without(key))
        return signals.Done()
