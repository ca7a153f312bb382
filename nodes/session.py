"""The session with one peer: keys, ordered lanes, acknowledgements, and which route is used.

There is one for a pair of nodes; it outlives its routes. Frames of streams come in by `receive` and go
out by `seal`; everything else that must be sent or done is left in `actions`. Pure: no socket, and the
clock is passed in. Specified in docs/protocol/mesh.md, sections 3 and 4.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from nodes.acks import LANES, Ack, Flag, Told, parse_ack
from nodes.actions import Action, Again, Dead, Emit, Ended, Switched, Up, Wanted
from nodes.delivery import Incoming, Outgoing
from nodes.flows import State
from nodes.handshake import MAX_MESSAGE
from nodes.keying import MAX_TRIES, Agreed, Keying
from nodes.keyring import Keyring
from nodes.liveness import DEAD_AFTER, Liveness
from nodes.pings import Pings
from nodes.sealing import TAG, ReplayWindow
from nodes.ways import MAX_BAD, Way, Ways
from nodes.wire import DATAGRAM_LANE, MAX_PAYLOAD, VERSION, Code, FrameType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nodes.delivery import Kept, Pool
    from nodes.flows import Flows, Stream
    from nodes.links.base import Packet

KEEP_ALIVE: Final = 1.0  # s
ASK_EVERY: Final = 3.0  # s between requests for a route while there is none
WANTED_FOR: Final = 30.0  # s that a session is kept up for somebody who asked for it
ROUNDS: Final = 2  # times that a lane was sent again in vain until its way is given up
STRIKES: Final = 3  # seconds more for a way that seems dead when there is no other

FIRST: Final = VERSION << 4 | FrameType.DATA
_NEVER: Final = float("inf")
_BIGGEST: Final = MAX_PAYLOAD - TAG


class Session:
    """See the module."""

    def __init__(
        self, keying: Keying, flows: Callable[[], Flows], now: float, pool: Pool | None = None
    ) -> None:
        self.keying = keying
        self.actions: deque[Action] = deque()
        self.ways = Ways()
        self.flows = flows()
        self.outgoing = Outgoing(pool)
        self.incoming = Incoming()
        self.liveness = Liveness(now)
        self.since = now  # when it came up
        self.switches = 0
        self.bad = self.unknown_epoch = self.replayed = 0  # frames, all that ever came
        self._make_flows = flows
        self._pool = pool
        self.keys = Keyring()
        self.pings = Pings(self.tell)
        self._window = ReplayWindow()
        self._suspect = False  # tell the peer so
        self._came_by: Way | None = None  # the last frame that opened
        self._ack_at = -_NEVER
        self._wanted_until = -_NEVER
        self._asked = -_NEVER

    # State --------------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        return self.keys.out is not None

    @property
    def round_trip(self) -> float | None:
        """Seconds from end to end, the shortest of late."""
        return self.liveness.round_trip

    @property
    def next_timer(self) -> float:
        """When `handle_timer` has something to do, apart from the tick each second."""
        # Without a way nothing can be sent, and what is due stays due.
        return min(self.incoming.ack_due, self.keying.next_timer) if self.ways.used else _NEVER

    def idle(self, now: float) -> bool:
        """Nobody needs it, and there is no way."""
        return not self.ways.all and not self.is_wanted(now)

    # Ways ---------------------------------------------------------------------------------------

    def want(self, now: float) -> None:
        """Somebody will send: see to keys and a way."""
        self._wanted_until = now + WANTED_FOR
        if self.ways.used is None:
            self._ask("somebody wants to send", now)
        elif not self.up:
            self.keying.begin(now)
            self._shake(now)

    def add_way(self, way: Way, now: float) -> None:
        for old in self.ways.add(way):
            self._lose(old, now, "there are newer ones")
        self.bound(now)

    def bound(self, now: float) -> None:
        """A way was added or its way back became known."""
        if self.ways.choose(now):
            self._switch(now)
        for way in self.ways.shunned(now):
            self._lose(way, now, "it proved bad, and there is another now")

    def prefer(self, route: str, now: float) -> None:
        """The manager's wish: this way before all others."""
        self.ways.prefer(route)
        self.bound(now)

    def drop_way(self, way: Way, now: float, reason: str) -> None:
        """The route ended."""
        was_used = self.ways.drop(way)
        if self.ways.choose(now) or was_used:
            self._switch(now)
        if self.is_wanted(now):
            self._ask(reason, now)

    def is_wanted(self, now: float) -> bool:
        """Whether somebody uses it, or did a moment ago."""
        return bool(self.flows.streams) or now < self._wanted_until

    def _ask(self, reason: str, now: float) -> None:
        self._asked = now
        self.actions.append(Wanted(reason))

    def _switch(self, now: float) -> None:
        """What is on the old way may be lost: all of it goes again on the new one."""
        self.liveness.switched(now)
        self.switches += 1
        self.outgoing.switched(now)
        self.actions.append(Switched())
        if self.ways.used is not None:
            if self.up:
                self.acknowledge(now)
            if self.keying.running or (not self.up and self.is_wanted(now)):
                self.keying.begin(now)
                self._shake(now)

    def _give_up(self, way: Way, now: float, reason: str, strikes: int = 1) -> None:
        """A way is no good: use another, or lose this one too when it was so `strikes` times."""
        self.ways.avoid(way, now)
        if self.ways.choose(now):
            self._switch(now)
        if way is not self.ways.used or way.strikes >= strikes:
            self._lose(way, now, reason)
        elif self.is_wanted(now):
            self._ask(reason, now)

    def _lose(self, way: Way, now: float, reason: str) -> None:
        """Give a route back: whoever laid it hears of it, and lays another."""
        self.drop_way(way, now, reason)
        self.actions.append(Dead(way, reason))

    # Handshakes ---------------------------------------------------------------------------------

    def handshake(self, way: Way, payload: memoryview, now: float) -> None:
        """A HANDSHAKE frame came."""
        result = self.keying.message(bytes(payload[: MAX_MESSAGE + 2]), now, way.route)
        if isinstance(result, Agreed):
            self._agreed(result, now, proved=False)
            self.acknowledge(now)  # the peer waits for a frame under the new keys
        elif result is not None:
            back = way if way.onward is not None else self.ways.used
            if back is not None:
                self.actions.append(Emit(back, FrameType.HANDSHAKE, result))

    def _shake(self, now: float) -> None:
        used = self.ways.used
        if used is None:
            return
        tries = self.keying.tries
        message = self.keying.due(now)
        if message is None:
            return
        if tries >= (ROUNDS if len(self.ways.all) > 1 else MAX_TRIES):
            self._give_up(used, now, "the handshake is not answered")
            used = self.ways.used
        if used is not None:
            self.actions.append(Emit(used, FrameType.HANDSHAKE, message))

    def _agreed(self, agreed: Agreed, now: float, *, proved: bool) -> None:
        """Take new keys; `proved`: the peer has used them already."""
        if not agreed.resumed or not self.up:
            self._begin_anew(now)
            self.keys.begin(agreed)
        else:
            self.keys.follow(agreed, now)
            if proved:
                self._came(agreed.epoch, now)
        self.liveness.agreed(now, anew=not agreed.resumed)
        self.actions.append(Up())
        self.pings.flush(now)

    def _came(self, epoch: int, now: float) -> None:
        if self.keys.came(epoch, now):
            self.keying.proved()

    def _begin_anew(self, now: float) -> None:
        """The peer knows nothing of the session that was: its streams are lost, if it was up."""
        if self.up:
            asked = [s for s in self.flows.streams.values() if s.state is State.OPENING]
            self._cut(Code.LINK_LOST, spared=asked)
        self._window = ReplayWindow()
        self._suspect = False
        self.since = now

    def _cut(self, code: Code, spared: Sequence[Stream] = ()) -> None:
        """End all streams, but for those that nobody has answered: they are asked for again."""
        kept = set(spared)
        ended = [stream for stream in self.flows.end() if stream not in kept]
        self.actions.append(Ended(ended, code))
        self.flows = self._make_flows()
        for stream in spared:
            self.flows.ask(stream)
        self.outgoing = Outgoing(self._pool)
        self.incoming = Incoming()
        self.keys.clear()

    def over(self, code: Code) -> None:
        """The session has ended; if anybody wants another, it begins with a handshake."""
        self._cut(code)
        self.keying.stop()

    def hang_up(self, code: Code) -> None:
        """End the session from this side, and tell the peer."""
        if self.up:
            self.tell(bytes([Told.BYE, code]))
        self.over(code)

    # Out ----------------------------------------------------------------------------------------

    def seal(self, lane: int, plain: bytes | memoryview, now: float) -> Kept:
        """Seal a record as the next frame of `lane`; the caller sends it. Only when `up`."""
        keys = self.keys
        assert keys.out is not None  # noqa: S101 - `up` was asked
        keys.sealed += len(plain)
        return self.outgoing.seal(keys.out, FIRST, keys.epoch, lane, plain, now)

    def acknowledge(self, now: float) -> None:
        """Tell the peer what came, which is also the sign of life."""
        self.incoming.ack_due = _NEVER
        if self.ways.used is None or not self.up:
            return
        flags = Flag.SUSPECT if self._suspect else 0
        expected = tuple(self.incoming.expected)
        ack = Ack(flags, self.incoming.missing, *self.liveness.times(now), expected)
        self.incoming.told(now)
        self._ack_at = now
        self._suspect = False
        self.tell(ack.pack())

    def tell(self, record: bytes | memoryview) -> None:
        """Send a record that may be lost, on the datagram lane."""
        way = self.ways.used
        if way is not None and self.up:
            epoch, counter, sealed = self.keys.tell(FIRST, record)
            self.actions.append(Emit(way, FrameType.DATA, sealed, DATAGRAM_LANE, epoch, counter))

    # In -----------------------------------------------------------------------------------------

    def receive(
        self, way: Way, packet: Packet, buffer: memoryview, now: float
    ) -> memoryview | None:
        """Open a DATA frame into `buffer`; its record when it is new and in turn, else None."""
        lane, counter, epoch, sealed = packet.lane, packet.counter, packet.epoch, packet.payload
        size = len(sealed) - TAG
        if not 0 < size <= _BIGGEST:
            self._does_not_open(way, now)
            return None
        into = buffer[:size]
        if self.keying.pending and (agreed := self.keying.confirmed_by(FIRST, packet, into, now)):
            self._agreed(agreed, now, proved=True)
        if not self._is_new(lane, counter, now):
            return None
        seal = self.keys.into.get(epoch)
        if seal is None:
            self.unknown_epoch += 1
            if not (self.up or self.is_wanted(now)):  # a session of which only the peer knows
                self.want(now)
            return None
        if not seal.open(FIRST, lane, epoch, counter, sealed, into):
            self._does_not_open(way, now)
            return None
        way.came(size)
        self._came_by = way
        self.liveness.heard = now
        self._came(epoch, now)
        if lane == DATAGRAM_LANE:
            self._window.came(counter)
            return into
        return (
            into if self.incoming.in_turn(lane, counter, size, now, self.liveness.pause) else None
        )

    def _is_new(self, lane: int, counter: int, now: float) -> bool:
        """Whether a frame may be opened at all."""
        if lane < LANES:
            return self.incoming.is_new(lane, counter, now)
        if lane == DATAGRAM_LANE and self._window.is_new(counter):
            return True
        self.replayed += 1
        return False

    def told(self, record: memoryview, now: float) -> None:
        """A record of the datagram lane that is about the session; raises WireError."""
        if record[0] == Told.BYE:
            self.over(Code.of(record[1]) if len(record) > 1 else Code.RESET)
        elif record[0] == Told.ACK:
            self._acknowledged(parse_ack(record), now)
        else:
            self.pings.heard(record, now)

    def _acknowledged(self, ack: Ack, now: float) -> None:
        if (timed := self.liveness.told(ack, now)) is not None:
            self.outgoing.capacity.timed(*timed, now)
        if self.outgoing.acknowledged(ack.expected, now):
            self.actions.append(Again())
        if self.outgoing.capacity.asks(now):
            self.acknowledge(now)
        if ack.missing and self.outgoing.fill(ack.missing, now, self.liveness.pause):
            self.actions.append(Again())
        if (used := self.ways.used) is None:
            return
        if ack.flags & Flag.SUSPECT:
            self._give_up(used, now, "the peer cannot open what comes on it")
        elif self.outgoing.leaks(now) and self.ways.another(now):
            self._give_up(used, now, "frames are missing of what is sent on it")

    def _does_not_open(self, way: Way, now: float) -> None:
        self.bad += 1
        way.bad += 1
        if way.bad >= MAX_BAD:
            if self._came_by is way or now - self.liveness.heard > DEAD_AFTER / 2:
                self._suspect = True  # unless somebody throws it in where the peer does not send
                self.incoming.ack_due = now
            self._give_up(way, now, "frames that came on it did not open")

    # Time ---------------------------------------------------------------------------------------

    def handle_timer(self, now: float) -> None:
        """At `next_timer`."""
        if now >= self.incoming.ack_due:
            self.acknowledge(now)
        self._shake(now)

    def tick(self, now: float) -> None:
        """Once a second."""
        self.keying.expire(now)
        self.keys.expire(now)
        for way in self.ways.silent():
            self._lose(way, now, "it answered no probe")
        if self.ways.used is None:
            if self.is_wanted(now) and now - self._asked >= ASK_EVERY:
                self._ask("there is none", now)
        elif self.up:
            self._look_after(self.ways.used, now)
        elif self.is_wanted(now):
            self.keying.begin(now)
            self._shake(now)
        if self.liveness.is_lost(now) and self.flows.streams:
            self.over(Code.LINK_LOST)
        elif self.keying.too_old(now):
            self.over(Code.TIMEOUT)

    def _look_after(self, used: Way, now: float) -> None:
        if now - self._ack_at >= KEEP_ALIVE * 0.9:
            self.acknowledge(now)
        if self.liveness.is_dead(now):
            self._give_up(used, now, "the peer does not hear what is sent on it", STRIKES)
        else:
            used.strikes = 0
            self._repeat(used, now)
        if self.keying.wants_new(now, self.keys.sealed) or now - self.liveness.heard > DEAD_AFTER:
            self.keying.begin(now)
            self._shake(now)
        if self.outgoing.overrun:
            self.hang_up(Code.PROTOCOL)

    def _repeat(self, used: Way, now: float) -> None:
        outgoing, longest = self.outgoing, self.liveness.longest
        overdue = outgoing.overdue(now, longest)
        overtaken = outgoing.overtaken(now, longest, self.liveness.proved)
        rounds = [outgoing.repeat(lane, now) for lane in overdue]
        if overdue:
            self.actions.append(Again())
        if max(rounds, default=0) > (1 if overtaken else ROUNDS) or (
            overtaken and self.ways.another(now)
        ):
            self._give_up(used, now, "what is sent on it does not arrive")
