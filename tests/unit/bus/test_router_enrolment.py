"""Strangers at the broker's core: who is admitted, who waits, who is refused; no sockets, no clock."""

import itertools
from collections.abc import Callable

import pytest

from bus import signals, wire
from bus.access import AccessError
from bus.enrolment import Door
from bus.identity import fingerprint
from bus.routing.enrolment import (
    MAX_FROM_ADDRESS,
    MAX_PENDING,
    MAX_STRANGERS,
    STAY,
    WAIT,
    Enrolment,
)
from bus.signals import EnrolmentAnswer, Opening, TokenQuery
from tests.support.dialogue import Peer, Table, key_of, only, refused


class Paper:
    """Keeps the door on paper, which may catch fire."""

    def __init__(self) -> None:
        self.door = Door()
        self.error: Exception | None = None

    def read(self) -> Door:
        if isinstance(self.error, AccessError):
            raise self.error
        return self.door

    def change(self, act: Callable[[Door], Door]) -> None:
        changed = act(self.read())
        if self.error is not None:
            raise self.error
        self.door = changed


class Reception(Table):
    """A table with an admin who is there already, and a door."""

    def __init__(self) -> None:
        super().__init__(admin="admin", clerk="operator")
        self.wall = 1.7e9
        self.paper = Paper()
        numbers = itertools.count(1)
        self.enrolment = Enrolment(
            self.router.sessions, self.router.change_access, self.paper,
            lambda: f"{next(numbers):043d}",
        )  # fmt: skip
        self.router.sessions.clock = lambda: self.wall
        self.router.add(self.enrolment)
        self.router.enrol = self.enrolment.meets
        self.admin = self.join("admin")

    def admits(self, address: str = "10.0.0.1") -> bool:
        return self.enrolment.admits(address, self.now)

    def token(self, *roles: str, name: str = "", seconds: float = 60) -> str:
        query = TokenQuery(list(roles or ("app",)), name, seconds)
        return str(self.admin.asks(signals.ENROL_TOKEN, query)["token"])

    def opens(self, seconds: float = 60) -> None:
        assert self.admin.asks(signals.ENROL_OPEN, Opening(seconds)) == {}

    def waiting(self) -> list[tuple[str, str]]:
        found = self.admin.asks(signals.ENROL_LIST)["pending"]
        assert all(asked["fingerprint"] == fingerprint(asked["key"]) for asked in found)
        return [(asked["key"], asked["name"]) for asked in found]

    def asks_to_join(self, name: str, token: str = "", called: str | None = None) -> Peer:
        """Dial and say ENROL; what is heard stays in the peer's inbox."""
        peer = self.dial(name)
        head = wire.encode(wire.Enrol(7, name if called is None else called, token))
        self.router.meet(peer.connection, head, None, self.now)
        self.carry_out()
        return peer

    def becomes(self, name: str, token: str = "") -> str:
        """Ask to join; the state that is answered, with everything about the answer checked."""
        peer = self.asks_to_join(name, token)
        answer = only(peer.hears(), wire.Enrolled)
        assert (answer.ref, answer.fingerprint) == (7, fingerprint(key_of(name)))
        assert peer.cut
        assert not peer.in_session
        assert bool(answer.roles) is (answer.state == "accepted")
        return answer.state


def test_a_token_admits_one_key_as_what_it_says() -> None:
    table = Reception()
    token = table.token("app", "observer", name="lamp")
    peer = table.asks_to_join("anna", token, called="Anna's own idea")
    answer = only(peer.hears(), wire.Enrolled)
    assert (answer.state, answer.roles) == ("accepted", ["app", "observer"])
    entry = table.saved[-1].get(key_of("anna"))
    assert entry is not None
    assert (entry.name, entry.roles) == ("lamp", ["app", "observer"])
    only(table.dial("anna").say(wire.Hello()), wire.Welcome)


def test_a_token_without_a_name_leaves_it_to_who_comes() -> None:
    table = Reception()
    table.asks_to_join("anna", table.token(), called="kitchen")
    entry = table.saved[-1].get(key_of("anna"))
    assert entry is not None
    assert entry.name == "kitchen"


def test_a_token_is_good_once_and_for_the_first() -> None:
    table = Reception()
    token, _ = table.token(), table.token()
    assert table.becomes("anna", token) == "accepted"
    assert table.becomes("bert", token) == "rejected"
    assert key_of("bert") not in table.router.sessions.access


def test_who_lost_the_answer_may_ask_again() -> None:
    table = Reception()
    token = table.token()
    assert table.becomes("anna", token) == "accepted"
    assert table.becomes("anna", token) == "accepted"
    assert table.becomes("anna") == "accepted"
    assert len(table.saved) == 1


def test_an_expired_and_a_wrong_token_are_refused_even_while_the_window_is_open() -> None:
    table = Reception()
    token = table.token(seconds=60)
    table.opens(3600)
    table.wall += 60
    assert table.becomes("anna", token) == "rejected"
    assert table.becomes("anna", "x" * 43) == "rejected"
    assert table.becomes("anna", "x") == "rejected"
    assert table.waiting() == []
    assert table.router.sessions.denied["token"] == 3


def test_without_a_token_a_key_waits_for_an_admin() -> None:
    table = Reception()
    table.opens()
    assert table.becomes("anna") == "pending"
    assert table.becomes("anna") == "pending"
    assert table.waiting() == [(key_of("anna"), "anna")]
    answer = EnrolmentAnswer(key_of("anna"), "lamp", ["node"])
    assert table.admin.asks(signals.ENROL_ACCEPT, answer) == {}
    assert table.waiting() == []
    assert table.becomes("anna") == "accepted"
    welcome = only(table.dial("anna").say(wire.Hello()), wire.Welcome)
    assert welcome.roles == ["node"]


def test_who_is_rejected_is_told_so_until_the_window_is_opened_anew() -> None:
    table = Reception()
    table.opens()
    assert table.becomes("anna") == "pending"
    assert table.admin.asks(signals.ENROL_REJECT, EnrolmentAnswer(key_of("anna"))) == {}
    assert table.becomes("anna") == "rejected"
    assert table.waiting() == []
    table.opens()
    assert table.becomes("anna") == "pending"


def test_a_token_admits_who_was_rejected_before() -> None:
    table = Reception()
    table.opens()
    table.becomes("anna")
    table.admin.asks(signals.ENROL_REJECT, EnrolmentAnswer(key_of("anna")))
    assert table.becomes("anna", table.token()) == "accepted"


@pytest.mark.parametrize("subject", [signals.ENROL_ACCEPT, signals.ENROL_REJECT])
def test_only_who_waits_can_be_accepted_or_rejected(subject: str) -> None:
    table = Reception()
    error = table.admin.asks(subject, EnrolmentAnswer(key_of("anna"), "x", ["app"]))
    assert (error.num, error.err) == (400, "bad_body")
    assert "does not wait" in error.msg


@pytest.mark.parametrize("roles", [[], ["boss"]])
def test_nobody_is_accepted_as_nothing(roles: list[str]) -> None:
    table = Reception()
    table.opens()
    table.becomes("anna")
    error = table.admin.asks(signals.ENROL_ACCEPT, EnrolmentAnswer(key_of("anna"), "x", roles))
    assert (error.num, error.err) == (400, "bad_body")
    assert table.waiting() == [(key_of("anna"), "anna")]


def test_who_is_let_in_by_a_token_alone_cannot_wait() -> None:
    table = Reception()
    table.token()
    peer = table.asks_to_join("anna")
    assert refused(peer.hears()) == (401, "key_unknown", 7)
    assert peer.cut


def test_who_waits_is_told_so_when_only_tokens_admit_any_more() -> None:
    table = Reception()
    table.opens(60)
    table.becomes("anna")
    table.becomes("bert")
    table.admin.asks(signals.ENROL_REJECT, EnrolmentAnswer(key_of("bert")))
    table.token(seconds=3600)
    table.wall += 60
    assert table.becomes("anna") == "pending"
    assert table.becomes("bert") == "rejected"


def test_a_forged_name_is_stripped_to_what_can_be_shown() -> None:
    table = Reception()
    table.opens()
    table.asks_to_join("anna", called="ad\x1b[2Jmin\r\n\u202e\u0000")
    table.asks_to_join("bert", called="\x07" * 64)
    assert table.waiting() == [(key_of("anna"), "ad[2Jmin"), (key_of("bert"), "")]


def test_a_stranger_that_says_anything_else_is_refused_and_cut() -> None:
    table = Reception()
    table.opens()
    commands = [
        wire.Hello(name="anna"), wire.Publish("app.x"), wire.Ping(1), wire.Bye(),
        wire.Subscribe(1, 1, ">"), wire.Request(1, signals.ACCESS_LIST, 1000),
        wire.Signal(key_of("admin"), "app.x"), wire.Serve(1, "app.x"),
    ]  # fmt: skip
    for command in commands:
        peer = table.dial("anna")
        assert refused(peer.say(command))[:2] == (401, "key_unknown")
        assert peer.cut
        assert not peer.in_session
    peer = table.dial("anna")
    assert refused(peer.say_raw(b"\xde\xad")) == (400, "bad_frame", None)
    assert peer.cut
    assert table.admin.hears() == []


def test_a_stranger_is_answered_once_whatever_it_goes_on_to_say() -> None:
    table = Reception()
    token = table.token()
    table.opens()
    peer = table.dial("anna")
    only(peer.say(wire.Enrol(1)), wire.Enrolled)
    for _ in range(100):
        assert peer.say(wire.Enrol(2, token=token)) == []
    assert key_of("anna") not in table.router.sessions.access


def test_a_key_that_is_allowed_is_told_so_and_keeps_its_session() -> None:
    table = Reception()
    session = table.join("clerk")
    assert table.becomes("clerk") == "accepted"
    assert refused(session.say(wire.Enrol(3))) == (409, "conflict", 3)
    assert session.in_session


def test_a_key_that_is_allowed_may_read_its_answer_whatever_follows() -> None:
    table = Reception()
    peer = table.dial("clerk")
    table.router.meet(peer.connection, wire.encode(wire.Enrol(1)), None, table.now)
    for number in range(5):
        table.router.meet(peer.connection, wire.encode(wire.Enrol(number)), None, table.now)
    assert table.router.sessions.take_cuts() == ()
    assert only(peer.hears(), wire.Enrolled).state == "accepted"
    assert peer.cut


def test_the_handshake_lets_strangers_in_only_while_the_door_is_open() -> None:
    table = Reception()
    assert not table.admits()
    table.opens(60)
    assert table.admits()
    table.wall += 60
    assert not table.admits()
    token = table.token(seconds=60)
    assert table.admits()
    table.becomes("anna", token)
    assert not table.admits()
    table.opens(60)
    table.opens(0)
    assert not table.admits()


def test_a_door_that_cannot_be_read_is_closed() -> None:
    table = Reception()
    table.opens(60)
    table.paper.error = AccessError("torn")
    assert not table.admits()
    table.paper.error = None
    assert table.admits()


def test_strangers_are_let_in_by_a_bounded_number_at_a_time_and_from_one_address() -> None:
    table = Reception()
    table.opens(3600)
    assert sum(table.admits("6.6.6.6") for _ in range(1000)) == MAX_FROM_ADDRESS
    assert table.admits("10.0.0.1")
    others = sum(table.admits(f"10.0.1.{number}") for number in range(1000))
    assert MAX_FROM_ADDRESS + 1 + others == MAX_STRANGERS
    table.now += STAY
    assert table.admits("6.6.6.6")


def test_the_list_of_who_waits_is_bounded_and_forgets() -> None:
    table = Reception()
    table.opens(3600)
    for number in range(MAX_PENDING):
        assert table.becomes(f"s{number}") == "pending"
    assert refused(table.asks_to_join("late").hears()) == (429, "limit", 7)
    assert table.becomes("s0") == "pending"
    table.admin.asks(signals.ENROL_REJECT, EnrolmentAnswer(key_of("s5")))
    assert table.becomes("late") == "pending"
    assert len(table.waiting()) == MAX_PENDING
    table.wall += WAIT + 1
    assert table.waiting() == []


def test_who_was_allowed_otherwise_waits_no_more() -> None:
    table = Reception()
    table.opens()
    table.becomes("anna")
    entry = signals.AccessEntry(key_of("anna"), "anna", ["app"])
    table.admin.asks(signals.ACCESS_PUT, entry)
    assert table.waiting() == []


def test_the_list_shows_tokens_but_not_what_they_are() -> None:
    table = Reception()
    token = table.token("node", name="attic", seconds=60)
    table.opens(30)
    listed = table.admin.asks(signals.ENROL_LIST)
    [shown] = listed["tokens"]
    assert (shown["name"], shown["roles"], shown["expires"]) == ("attic", ["node"], table.wall + 60)
    assert token not in str(listed)
    assert listed["open_until"] == table.wall + 30
    table.wall += 60
    assert table.admin.asks(signals.ENROL_LIST) == {"pending": [], "tokens": [], "open_until": 0.0}


@pytest.mark.parametrize(
    "subject",
    [signals.ENROL_LIST, signals.ENROL_OPEN, signals.ENROL_TOKEN, signals.ENROL_ACCEPT,
     signals.ENROL_REJECT],
)  # fmt: skip
def test_an_operator_admits_nobody(subject: str) -> None:
    table = Reception()
    error = table.join("clerk").asks(
        subject, {"key": key_of("x"), "roles": ["admin"], "seconds": 1}
    )
    assert (error.num, error.err) == (403, "denied")


@pytest.mark.parametrize(
    ("subject", "body"),
    [(signals.ENROL_OPEN, Opening(-1)), (signals.ENROL_OPEN, Opening(1e9)), (signals.ENROL_OPEN, {}),
     (signals.ENROL_TOKEN, TokenQuery(["boss"])), (signals.ENROL_TOKEN, TokenQuery(["app"], "x", 0)),
     (signals.ENROL_TOKEN, TokenQuery(["app"], "\n")), (signals.ENROL_ACCEPT, {"key": 1})],
)  # fmt: skip
def test_what_an_admin_asks_wrongly_is_told(subject: str, body: object) -> None:
    table = Reception()
    error = table.admin.asks(subject, body)
    assert (error.num, error.err) == (400, "bad_body")
    assert table.paper.door == Door()


def test_a_token_whose_key_cannot_be_saved_is_not_used_up() -> None:
    table = Reception()
    token = table.token()
    table.save_error = OSError(28, "No space left on device")
    peer = table.asks_to_join("anna", token)
    assert refused(peer.hears()) == (500, "internal", 7)
    assert key_of("anna") not in table.router.sessions.access
    table.save_error = None
    assert table.becomes("anna", token) == "accepted"


def test_a_token_that_cannot_be_made_void_admits_nobody() -> None:
    table = Reception()
    token = table.token()
    table.paper.error = OSError(30, "Read-only file system")
    peer = table.asks_to_join("anna", token)
    assert refused(peer.hears()) == (500, "internal", 7)
    assert table.saved == []
    assert key_of("anna") not in table.router.sessions.access


def test_an_admin_is_told_when_the_door_cannot_be_saved() -> None:
    table = Reception()
    table.paper.error = OSError(28, "No space left on device")
    error = table.admin.asks(signals.ENROL_OPEN, Opening(60))
    assert (error.num, error.err) == (500, "internal")
    assert not table.admits()
