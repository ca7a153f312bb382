"""The requests that the broker answers itself, on subjects under `$SYS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from bus import signals
from bus.access import AccessError, AccessList
from bus.errors import Refused, RemoteProtocolError
from bus.peers import Session


@dataclass(frozen=True)
class System:
    """Answers from what the router lends it."""

    info: signals.BrokerInfo
    sessions: Callable[[str | None], Iterable[Session]]  # of one key, or all
    access: Callable[[], AccessList]
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
                return signals.Sessions([session.info() for session in self.sessions(key)])
            case signals.INFO:
                return msgspec.structs.replace(self.info, sessions=len(list(self.sessions(None))))
            case signals.ACCESS_PUT:
                entry = signals.unpack(body, signals.AccessEntry)
                self.change_access(self.access().with_entry(entry))
            case signals.ACCESS_REMOVE:
                key = signals.unpack(body, signals.AccessKey).key
                self.change_access(self.access().without(key))
            case signals.ACCESS_LIST:
                return signals.AccessEntries(self.access().entries)
            case _:
                problem = f"the broker does not serve {subject}"
                raise RemoteProtocolError(404, "no_responders", problem)
        return signals.Done()
