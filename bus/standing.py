"""A client's subscriptions and services: said to the broker on every connection. Pure."""

from __future__ import annotations

from bus import wire
from bus.errors import NotAuthorised
from bus.sending import Outgoing, SendQueue, checked
from bus.waiting import Ledger, Waiting, Withdrawn, as_exception

RESTORED = 1  # the PING behind what is said again: its PONG says that all of it is in force


class Standing:
    """What the broker is to know of us, by sid or subject. `connected` while it has welcomed us."""

    def __init__(self, queue: SendQueue, ledger: Ledger) -> None:
        self.connected = False
        self._queue = queue
        self._ledger = ledger
        self._commands: dict[int | str, wire.Subscribe | wire.Serve] = {}

    def subscribe(
        self, pattern: str, policy: str, group: str = "", window: int = 0
    ) -> tuple[int, int]:
        """Returns the id under which `Settled` tells how it went, and the `sid` of its deliveries."""
        ref, sid = self._ledger.new_id(), self._ledger.new_id()
        self._say(sid, wire.Subscribe(ref, sid, pattern, policy, group, window))
        return ref, sid

    def unsubscribe(self, sid: int) -> None:
        if self._commands.pop(sid, None) is not None and self.connected:
            self._queue.push(wire.Unsubscribe(self._ledger.new_id(), sid), transient=True)

    def serve(
        self, subject: str, *, name: str = "", ver: str = "", desc: str = "", inflight: int = 0
    ) -> int:
        """Returns the id under which `Settled` tells how it went."""
        ref = self._ledger.new_id()
        self._say(subject, wire.Serve(ref, subject, name, ver, desc, inflight))
        return ref

    def unserve(self, subject: str, timeout: float, now: float) -> int | None:
        """Stop serving; None when there is nobody to tell."""
        if self._commands.pop(subject, None) is None or not self.connected:
            return None
        ref = self._ledger.new_id()
        self._queue.push(wire.Unserve(ref, subject), transient=True)
        self._ledger.add(ref, Waiting("unserve", subject, now + timeout, left=True))
        return ref

    def withdraw(self, what: int | str) -> None:
        """Forget a subscription (by sid) or service (by subject) that the broker refused."""
        self._commands.pop(what, None)

    def again(self) -> list[Outgoing]:
        """All of it for a new connection, and a PING behind it; nothing when there is nothing."""
        said = [
            Outgoing(wire.encode(c), None, c.id, transient=True) for c in self._commands.values()
        ]
        return [*said, Outgoing(wire.encode(wire.Ping(RESTORED)), transient=True)] if said else []

    def ended(self, ended: wire.Ended) -> Withdrawn:
        """The broker has taken one away."""
        self._commands.pop(ended.s if ended.sid is None else ended.sid, None)
        return Withdrawn(ended.s, ended.sid, NotAuthorised(ended.reason or f"{ended.s}: ended"))

    def refused(self, error: wire.Error) -> Withdrawn | None:
        """One that was accepted before was refused on a new connection: the rights have changed since."""
        for name, command in self._commands.items():
            if error.ref == command.id:
                del self._commands[name]
                sid = command.sid if isinstance(command, wire.Subscribe) else None
                return Withdrawn(command.s, sid, as_exception(error))
        return None

    def _say(self, name: int | str, command: wire.Subscribe | wire.Serve) -> None:
        verb = type(command).__name__.lower()
        checked(command, f"{verb} {command.s}")
        self._commands[name] = command
        self._ledger.add(command.id, Waiting(verb, command.s))
        if self.connected:
            self._queue.push(command, ref=command.id, transient=True)
