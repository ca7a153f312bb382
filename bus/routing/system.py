"""The requests that the broker answers itself, on subjects under `$SYS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from bus import signals
from bus.access import AccessError, AccessList
from bus.errors import Refused, RemoteProtocolError
from bus.routing.sessions import Sessions


@dataclass(frozen=True)
class System:
    """Answers from what the router lends it."""

    sessions: Sessions
    change_access: Callable[[AccessList], None]  # saves, swaps in; may raise OSError

    def answer(self, subject: str, body: bytes) -> bytes:
        """The answer's body; `RemoteProtocolError` tells the requester what is wrong."""
        try:
            return signals.pack(self._answer(subject, body))
        except (Refused, AccessError) as error:
            raise RemoteProtocolError(400, "bad_body", str(error)) from None
        except OSError as error:
            problem = f"the access list was not saved: {error}"
            raise RemoteProtocolError(500, "internal", problem) from None

    def _answer(self, subject: str, body: bytes) -> object:
        match subject:
            case signals.SESSIONS:
                key = signals.unpack(body, signals.SessionsQuery).key if body else None
                found = self.sessions if key is None else self.sessions.of(key)
                return signals.Sessions([session.info() for session in found])
            case signals.INFO:
                return msgspec.structs.replace(self.sessions.info, sessions=len(self.sessions))
            case signals.ACCESS_PUT:
                entry = signals.unpack(body, signals.AccessEntry)
                self.change_access(self.sessions.access.with_entry(entry))
            case signals.ACCESS_REMOVE:
                key = signals.unpack(body, signals.AccessKey).key
                self.change_access(self.sessions.access.without(key))
            case signals.ACCESS_LIST:
                return signals.AccessEntries(self.sessions.access.entries)
            case _:
                problem = f"the broker does not serve {subject}"
                raise RemoteProtocolError(404, "no_responders", problem)
        return signals.Done()
