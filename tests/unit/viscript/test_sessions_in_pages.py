"""Who is on the bus is told in pages; the launcher and `viscript bus sessions` read all of them."""

import asyncio
from collections.abc import Callable

from bus.signals import SessionInfo, Sessions, SessionsQuery, pack, unpack
from viscript import cli
from viscript.commands.bus import connection, where
from viscript.membership import Membership


class Broker:
    """Tells of these keys' sessions, two a page; `turning` is called before each page but the first."""

    def __init__(self, *keys: str, turning: Callable[[], object] = lambda: None) -> None:
        self._sessions = [
            SessionInfo(key.ljust(40, "0"), key, 1.7e9, 0, 0, 0, 0, 0, session=number)
            for number, key in enumerate(keys, 1)
        ]
        self._turning = turning

    def page(self, query: SessionsQuery) -> Sessions:
        if query.after:
            self._turning()
        found = [session for session in self._sessions if session.session > query.after]
        return Sessions(found[:2], len(found[2:]))

    async def request(self, _subject: str, body: bytes = b"") -> bytes:
        return pack(self.page(unpack(body, SessionsQuery) if body else SessionsQuery()))

    # As `connection.Asking`.

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, _subject, query, _kind):
        return self.page(query or SessionsQuery())


def keys(names: str) -> set[str]:
    return {name.ljust(40, "0") for name in names}


def test_the_launcher_learns_who_is_on_every_page():
    arrived = []
    membership = Membership(Broker("a", "b", "c", "d", "e"), arrived.append)
    asyncio.run(membership._look())
    assert membership.online == keys("abcde")
    assert set(arrived) == {None, *keys("abcde")}


def test_who_leaves_between_two_pages_is_not_put_back():
    def leave() -> None:
        membership.online.clear()

    membership = Membership(Broker("a", "b", "c", turning=leave), lambda _: None)
    asyncio.run(membership._look())
    assert membership.online == keys("c")


def test_the_command_lists_the_sessions_of_every_page(monkeypatch, capsys):
    monkeypatch.setattr(where, "here", lambda: None)
    monkeypatch.setattr(connection, "Asking", lambda _: Broker("a", "b", "c", "d", "e"))
    assert cli.run(["bus", "sessions"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
