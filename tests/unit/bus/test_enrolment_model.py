"""Enrolment against a simple model: who is on the list came by a token that was good, or by an admin."""

import contextlib
import itertools
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bus import signals, wire
from bus.access import AccessError
from bus.enrolment import Door
from bus.routing.enrolment import Enrolment
from bus.signals import AccessKey, EnrolmentAnswer, Opening, TokenQuery
from tests.support.dialogue import Table, key_of, only

KEYS = st.sampled_from("abcdef")


class Paper:
    """Keeps the door; `burns` makes the next change fail."""

    def __init__(self) -> None:
        self.door = Door()
        self.burns = False

    def read(self) -> Door:
        return self.door

    def change(self, act: Callable[[Door], Door]) -> None:
        changed = act(self.door)
        if self.burns:
            self.burns = False
            raise OSError(28, "No space left on device")
        self.door = changed


class Model(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.table = Table(boss="admin")
        self.wall = 1.7e9
        self.table.router.sessions.clock = lambda: self.wall
        self.paper = Paper()
        numbers = itertools.count(1)
        self._restart(lambda: f"{next(numbers):043d}")
        self.boss = self.table.join("boss")
        self.tokens: dict[str, float] = {}  # unused: until when
        self.issued: list[str] = []
        self.open_until = 0.0
        self.pending: set[str] = set()
        self.rejected: set[str] = set()
        self.allowed: set[str] = set()

    def _restart(self, new_token: Callable[[], str]) -> None:
        router = self.table.router
        self.new_token = new_token
        self.part = Enrolment(router.sessions, router.change_access, self.paper, new_token)
        router.add(self.part)
        router.enrol = self.part.meets

    @rule(seconds=st.sampled_from([1.0, 10.0, 100.0]))
    def make_token(self, seconds: float) -> None:
        made = self.boss.asks(signals.ENROL_TOKEN, TokenQuery(["app"], "", seconds))
        self.tokens[made["token"]] = self.wall + seconds
        self.issued.append(made["token"])

    @rule(seconds=st.sampled_from([0.0, 5.0, 50.0]))
    def open_door(self, seconds: float) -> None:
        self.boss.asks(signals.ENROL_OPEN, Opening(seconds))
        self.open_until = self.wall + seconds if seconds else 0.0
        self.rejected.clear()

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.wall += seconds

    @rule(name=KEYS, pick=st.integers(0, 50), burns=st.booleans(), fails=st.booleans())
    def comes_with_a_token(self, name: str, pick: int, *, burns: bool, fails: bool) -> None:
        token = (self.issued or ["x" * 43])[pick % max(1, len(self.issued))]
        good = self.tokens.get(token, 0.0) > self.wall
        self.paper.burns = burns
        self.table.save_error = OSError(28, "No space left") if fails and not burns else None
        [answer] = self.table.dial(name).say(wire.Enrol(1, name, token))
        self.paper.burns, self.table.save_error = False, None
        if name in self.allowed:
            assert answer.state == "accepted"
        elif not good:
            assert answer.state == "rejected"
        elif burns or fails:
            assert (answer.num, answer.err) == (500, "internal")
        else:
            assert answer.state == "accepted"
            del self.tokens[token]
            self.allowed.add(name)
            self.pending.discard(name)
            self.rejected.discard(name)

    @rule(name=KEYS)
    def comes_without(self, name: str) -> None:
        [answer] = self.table.dial(name).say(wire.Enrol(1, name))
        if name in self.allowed:
            assert answer.state == "accepted"
        elif name in self.pending:
            assert answer.state == "pending"
        elif name in self.rejected:
            assert answer.state == "rejected"
        elif self.open_until > self.wall:
            assert answer.state == "pending"
            self.pending.add(name)
        else:
            assert (answer.num, answer.err) == (401, "key_unknown")

    @rule(name=KEYS, accepted=st.booleans())
    def the_admin_decides(self, name: str, *, accepted: bool) -> None:
        subject = signals.ENROL_ACCEPT if accepted else signals.ENROL_REJECT
        answer = self.boss.asks(subject, EnrolmentAnswer(key_of(name), "", ["app"]))
        if name not in self.pending:
            assert answer.num == 400
            return
        assert answer == {}
        self.pending.discard(name)
        (self.allowed if accepted else self.rejected).add(name)

    @rule(name=KEYS)
    def the_admin_forbids(self, name: str) -> None:
        self.boss.asks(signals.ACCESS_REMOVE, AccessKey(key_of(name)))
        self.allowed.discard(name)

    @rule()
    def the_broker_starts_again(self) -> None:
        self._restart(self.new_token)
        self.pending.clear()
        self.rejected.clear()

    @invariant()
    def the_list_holds_who_was_admitted(self) -> None:
        access = self.table.router.sessions.access
        assert {e.key for e in access.entries} == {key_of(n) for n in (*self.allowed, "boss")}

    @invariant()
    def only_who_is_on_it_gets_a_session(self) -> None:
        for name in "abc":
            peer = self.table.dial(name)
            heard = peer.say(wire.Hello())
            if name in self.allowed:
                only(heard, wire.Welcome)
                self.table.router.sessions.close(peer.session, 0, "done")
            else:
                assert only(heard, wire.Error).err == "key_unknown"

    @invariant()
    def the_handshake_lets_strangers_in_while_there_is_a_way(self) -> None:
        self.table.now += 60  # not too many at a time
        way = self.open_until > self.wall or any(u > self.wall for u in self.tokens.values())
        assert self.part.admits("10.0.0.1", self.table.now) is way
        with contextlib.suppress(AccessError):
            assert {t.expires for t in self.paper.read().live(self.wall)} == {
                until for until in self.tokens.values() if until > self.wall
            }


TestEnrolment = Model.TestCase
TestEnrolment.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
