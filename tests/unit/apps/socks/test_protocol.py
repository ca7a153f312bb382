import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.socks.protocol import (
    MAX_SURPLUS,
    AssociateRequested,
    ConnectRequested,
    Event,
    Failed,
    Handshake,
    Reply,
    Send,
    State,
)

GREETING = bytes.fromhex("050100")
LOGIN_GREETING = bytes.fromhex("05020002")
USERS = {b"ann": b"secret", b"empty": b""}
TO_NAME = b"\5\1\0\3\x0bexample.com\x01\xbb"
TO_IPV4 = bytes.fromhex("05010001 c0000201 0050")
TO_IPV6 = bytes.fromhex("05010004 20010db8000000000000000000000001 1f90")


def login(name: bytes, password: bytes) -> bytes:
    return bytes((1, len(name))) + name + bytes((len(password),)) + password


def talk(data: bytes, users: dict[bytes, bytes] | None = None) -> tuple[Handshake, list[Event]]:
    machine = Handshake(users)
    return machine, machine.receive(data)


def sent(events: list[Event]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Send))


def outcome(events: list[Event]) -> Event | None:
    found = [event for event in events if not isinstance(event, Send)]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(
    ("request_", "host", "port"),
    [
        (TO_NAME, "example.com", 443),
        (TO_IPV4, "192.0.2.1", 80),
        (TO_IPV6, "2001:db8::1", 8080),
        (b"\5\1\0\3\xff" + b"a" * 255 + b"\0\0", "a" * 255, 0),
    ],
)
def test_connect_names_its_target(request_: bytes, host: str, port: int):
    machine, events = talk(GREETING + request_)
    assert events == [Send(b"\5\0"), ConnectRequested(host, port)]
    assert machine.answer(Reply.SUCCEEDED) == bytes.fromhex("05000001 00000000 0000")


@pytest.mark.parametrize("code", list(Reply))
def test_the_answer_carries_its_code(code: Reply):
    machine, _ = talk(GREETING + TO_IPV4)
    assert machine.answer(code)[:2] == bytes((5, code))


def test_there_is_one_answer():
    machine, _ = talk(GREETING + TO_IPV4)
    machine.answer(Reply.SUCCEEDED)
    with pytest.raises(RuntimeError, match="DONE"):
        machine.answer(Reply.SUCCEEDED)


def test_the_dialogue_with_a_password():
    machine = Handshake(USERS)
    assert machine.receive(LOGIN_GREETING) == [Send(b"\5\2")]
    assert machine.receive(login(b"ann", b"secret")) == [Send(b"\1\0")]
    assert machine.receive(TO_NAME) == [ConnectRequested("example.com", 443)]


def test_an_empty_password_is_a_password():
    _, events = talk(LOGIN_GREETING + login(b"empty", b"") + TO_IPV4, USERS)
    assert outcome(events) == ConnectRequested("192.0.2.1", 80)


@pytest.mark.parametrize(
    "credentials",
    [
        login(b"ann", b"wrong"),
        login(b"ann", b""),
        login(b"bob", b"secret"),
        login(b"", b""),
        login(b"ann", b"secret\0"),
        b"\5\1a\1a",
    ],
)
def test_wrong_credentials_are_refused_and_the_request_is_not_read(credentials: bytes):
    _, events = talk(LOGIN_GREETING + credentials + TO_IPV4, USERS)
    assert sent(events) == b"\5\2\1\1"
    assert isinstance(outcome(events), Failed)


def test_without_users_a_password_is_not_asked_for():
    _, events = talk(LOGIN_GREETING + TO_IPV4)
    assert sent(events) == b"\5\0"


@pytest.mark.parametrize(
    ("greeting", "users"),
    [(b"\5\1\0", USERS), (b"\5\1\2", None), (b"\5\0", None), (b"\5\xff" + b"\x80" * 255, USERS)],
)
def test_no_common_method(greeting: bytes, users: dict[bytes, bytes] | None):
    machine, events = talk(greeting, users)
    assert sent(events) == b"\5\xff"
    assert isinstance(outcome(events), Failed)
    assert machine.over


def test_datagrams_are_asked_for_with_the_place_they_will_come_from():
    machine, events = talk(GREETING + b"\5\3" + TO_IPV4[2:])
    assert events == [Send(b"\5\0"), AssociateRequested("192.0.2.1", 80)]
    assert machine.answer(Reply.SUCCEEDED, ("127.0.0.1", 4096)) == bytes.fromhex(
        "05000001 7f000001 1000"
    )


def test_datagrams_go_to_an_address_of_either_family():
    machine, _ = talk(GREETING + b"\5\3" + TO_IPV6[2:])
    assert machine.answer(Reply.SUCCEEDED, ("::1", 1)) == b"\5\0\0\4" + bytes(15) + b"\1\0\1"


@pytest.mark.parametrize("command", [0, 2, 9, 255])
def test_other_commands_are_read_to_their_end_and_refused(command: int):
    request_ = bytes((5, command)) + TO_NAME[2:]
    machine, events = talk(GREETING + request_ + b"rest")
    assert sent(events) == b"\5\0" + bytes.fromhex("0507000100000000 0000")
    assert isinstance(outcome(events), Failed)
    assert machine.surplus == b"rest"


@pytest.mark.parametrize("kind", [0, 2, 5, 255])
def test_unknown_address_types_are_refused(kind: int):
    _, events = talk(GREETING + bytes((5, 1, 0, kind)))
    assert sent(events)[2:4] == bytes((5, Reply.ADDRESS_UNSUPPORTED))


@pytest.mark.parametrize("name", [b"", b"a b", b"a\n", b"\x1b[2J", "münchen".encode(), b"a\0.com"])
def test_what_cannot_be_a_name_is_refused(name: bytes):
    _, events = talk(GREETING + b"\5\1\0\3" + bytes((len(name),)) + name + b"\0P")
    assert sent(events)[2:4] == bytes((5, Reply.GENERAL))
    assert isinstance(outcome(events), Failed)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\4\1\0P\x7f\0\0\1\0", "SOCKS4"),
        (b"\x16\x03\x01", "0x16"),
    ],
)
def test_strangers_are_told_apart_by_their_first_byte_and_get_no_answer(data: bytes, reason: str):
    _, events = talk(data[:1])
    assert sent(events) == b""
    failed = outcome(events)
    assert isinstance(failed, Failed)
    assert reason in failed.reason


def test_a_request_of_another_version_is_a_general_failure():
    _, events = talk(GREETING + b"\4\1\0\1")
    assert sent(events)[2:4] == bytes((5, Reply.GENERAL))


def test_what_comes_before_the_reply_is_kept():
    machine, _ = talk(GREETING + TO_NAME + b"early ")
    assert machine.receive(b"data") == []
    machine.answer(Reply.SUCCEEDED)
    assert machine.surplus == b"early data"


def test_what_is_kept_before_the_reply_is_bounded():
    machine, _ = talk(GREETING + TO_NAME)
    events = machine.receive(b"x" * (MAX_SURPLUS + 1))
    assert isinstance(outcome(events), Failed)
    assert machine.state is State.DONE


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, dict[bytes, bytes] | None]:
    users = draw(st.sampled_from([None, USERS]))
    credentials = draw(st.sampled_from([login(b"ann", b"secret"), login(b"x", b"y")]))
    request_ = draw(
        st.sampled_from([TO_NAME, TO_IPV4, TO_IPV6, b"\5\2" + TO_NAME[2:], b"\5\3" + TO_NAME[2:]])
    )
    tail = draw(st.binary(max_size=50))
    return LOGIN_GREETING + (credentials if users else b"") + request_ + tail, users


@given(conversations(), st.data())
def test_pieces_of_any_size_say_the_same(
    conversation: tuple[bytes, dict[bytes, bytes] | None], data: st.DataObject
):
    stream, users = conversation
    whole, expected = talk(stream, users)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=20)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    machine = Handshake(users)
    events = [event for piece in pieces for event in machine.receive(piece)]
    assert events == expected
    if machine.state is State.ANSWERING:
        assert machine.surplus == whole.surplus


@given(st.lists(st.binary(max_size=600), max_size=8), st.sampled_from([None, USERS]))
def test_garbage_ends_in_one_outcome_and_never_raises(
    pieces: list[bytes], users: dict[bytes, bytes] | None
):
    machine = Handshake(users)
    events = [event for piece in pieces for event in machine.receive(piece)]
    end = outcome(events)
    assert (end is None) == (machine.state not in (State.ANSWERING, State.DONE))
    assert machine.over == (end is not None)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_garbage_behind_a_valid_start(first: bytes, second: bytes):
    machine = Handshake(USERS)
    machine.receive(LOGIN_GREETING + login(b"ann", b"secret"))
    events = machine.receive(b"\5" + first) + machine.receive(second)
    assert (outcome(events) is not None) == machine.over
