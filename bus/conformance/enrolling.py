"""Enrolment, and what becomes of sessions whose rights change (sections 4, 11 and 12 of the specification).

All but one need a first key with the role admin. The door is left as it was found.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from bus import sockets
from bus.conformance.checks import Checks
from bus.conformance.results import Skipped, Unexpected
from bus.conformance.table import Heard, Peer, Table
from bus.identity import KeyPair, fingerprint

ENROLLING = Checks()
_OPEN = 60.0  # seconds; should we be killed, the door closes by itself


@contextmanager
def _open_door(admin: Peer) -> Iterator[None]:
    """Strangers may ask; `Skipped` when `admin` is none."""
    until = admin.asks_broker("$SYS.enrol.list")["open_until"]
    admin.asks_broker("$SYS.enrol.open", {"seconds": _OPEN})
    try:
        yield
    finally:
        left = max(0.0, until - time.time()) if until else 0.0
        admin.asks_broker("$SYS.enrol.open", {"seconds": left})


@contextmanager
def _guest(table: Table, admin: Peer) -> Iterator[KeyPair]:
    """A key with the role app, for the while; `Skipped` when `admin` is none."""
    pair = sockets.new_keypair()
    _admit(admin, pair)
    try:
        yield pair
    finally:
        # By a session of its own: the check may have spoilt the admin's.
        table.joins().asks_broker("$SYS.access.remove", {"key": pair.public})


def _admit(admin: Peer, pair: KeyPair, *denied: str) -> None:
    deny = {"subscribe": list(denied), "serve": list(denied)}
    entry = {"key": pair.public, "name": "conformance", "roles": ["app"], "deny": deny}
    admin.asks_broker("$SYS.access.put", entry)


def _enrols(table: Table, pair: KeyPair, token: str = "") -> Heard:
    """A stranger asks, hears what came of it, and is cut."""
    stranger = table.dials(pair)
    stranger.says("ENROL", id=7, name="conformance", token=token)
    heard = stranger.hears("ENROLLED", ref=7, fingerprint=fingerprint(pair.public))
    stranger.is_cut()
    return heard


def _expect(heard: Heard, state: str, *roles: str) -> None:
    if (heard.fields["state"], heard.fields.get("roles", [])) != (state, list(roles)):
        raise Unexpected(f"state {state}, roles {list(roles)}", str(heard))


@ENROLLING.check("ENROL in a session is a conflict and changes nothing")
def _(table: Table) -> None:
    peer = table.joins()
    peer.says("ENROL", id=7, name="conformance")
    peer.hears("ERROR", num=409, err="conflict", ref=7)
    peer.hears_no_more()


@ENROLLING.check("a stranger who asks waits until an admin accepts it, and then has a session")
def _(table: Table) -> None:
    admin, pair = table.joins(), sockets.new_keypair()
    with _open_door(admin):
        _expect(_enrols(table, pair), "pending")
        waiting = admin.asks_broker("$SYS.enrol.list")["pending"]
        if (pair.public, fingerprint(pair.public)) not in [
            (one["key"], one["fingerprint"]) for one in waiting
        ]:
            raise Unexpected(f"{pair.public} among those who wait", repr(waiting))
        accepted = {"key": pair.public, "name": "conformance", "roles": ["app"]}
        admin.asks_broker("$SYS.enrol.accept", accepted)
        try:
            _expect(_enrols(table, pair), "accepted", "app")
            table.dials(pair).hello()
        finally:
            admin.asks_broker("$SYS.access.remove", {"key": pair.public})


@ENROLLING.check("a stranger whom an admin rejects is told so")
def _(table: Table) -> None:
    admin, pair = table.joins(), sockets.new_keypair()
    with _open_door(admin):
        _expect(_enrols(table, pair), "pending")
        admin.asks_broker("$SYS.enrol.reject", {"key": pair.public})
        _expect(_enrols(table, pair), "rejected")


@ENROLLING.check("a join token admits one key, with its roles, and no other after it")
def _(table: Table) -> None:
    admin, pair = table.joins(), sockets.new_keypair()
    with _open_door(admin):
        wanted = {"roles": ["app"], "name": "conformance", "seconds": _OPEN}
        token = admin.asks_broker("$SYS.enrol.token", wanted)["token"]
        try:
            _expect(_enrols(table, pair, token), "accepted", "app")
            table.dials(pair).hello()
            _expect(_enrols(table, sockets.new_keypair(), token), "rejected")
        finally:
            admin.asks_broker("$SYS.access.remove", {"key": pair.public})


@ENROLLING.check("a stranger may say nothing but ENROL")
def _(table: Table) -> None:
    with _open_door(table.joins()):
        for command, fields in (("HELLO", {}), ("PUBLISH", {"s": table.place})):
            stranger = table.dials(sockets.new_keypair())
            stranger.says(command, **fields)
            stranger.hears("ERROR", num=401, err="key_unknown")
            stranger.is_cut()


@ENROLLING.check("what new rights do not cover is ENDED, and the session lives on")
def _(table: Table) -> None:
    admin = table.joins()
    with _guest(table, admin) as pair:
        guest = table.dials(pair).hello(caps=["notices"])
        if "notices" not in guest.welcome.get("caps", []):
            raise Skipped("the broker does not speak notices")
        taken, kept = f"{table.place}.taken", f"{table.place}.kept"
        for sid, subject in ((5, taken), (6, kept)):
            guest.says("SUBSCRIBE", id=sid, sid=sid, s=subject)
            guest.hears("OK", ref=sid)
        guest.says("SERVE", id=7, s=taken)
        guest.hears("OK", ref=7)
        _admit(admin, pair, taken)
        ended = [guest.hears("ENDED", num=403, s=taken).fields.get("sid") for _ in range(2)]
        if sorted(ended, key=str) != [5, None]:
            raise Unexpected("ENDED of the subscription, sid 5, and of the service", repr(ended))
        for subject in (taken, kept):
            admin.says("PUBLISH", b"still there?", s=subject)
        guest.hears("DELIVERY", b"still there?", sid=6, s=kept)
        guest.hears_no_more()


@ENROLLING.check("without notices a session from which something is taken hears GOODBYE 403")
def _(table: Table) -> None:
    admin = table.joins()
    with _guest(table, admin) as pair:
        guest = table.dials(pair).hello()
        guest.says("SUBSCRIBE", id=5, sid=5, s=table.place)
        guest.hears("OK", ref=5)
        _admit(admin, pair, table.place)
        guest.hears("GOODBYE", num=403)
        guest.is_cut()
