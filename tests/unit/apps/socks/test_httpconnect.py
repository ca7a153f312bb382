import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.socks.httpconnect import MAX_HEAD, HttpConnect
from apps.socks.protocol import ConnectRequested, Event, Failed, Reply, Send

USERS = {b"ann": b"se:cret", b"empty": b""}


def talk(data: bytes, users: dict[bytes, bytes] | None = None) -> tuple[HttpConnect, list[Event]]:
    machine = HttpConnect(users)
    return machine, machine.receive(data)


def connect(place: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join((b"CONNECT " + place + b" HTTP/1.1", *lines, b"", b""))


def login(text: bytes) -> bytes:
    return b"Proxy-Authorization: Basic " + base64.b64encode(text)


def status(events: list[Event]) -> int:
    first, failed = events
    assert isinstance(first, Send)
    assert isinstance(failed, Failed)
    version, code, _ = first.data.split(b" ", 2)
    assert version == b"HTTP/1.1"
    return int(code)


@pytest.mark.parametrize(
    ("place", "host", "port"),
    [
        (b"example.com:443", "example.com", 443),
        (b"192.0.2.1:80", "192.0.2.1", 80),
        (b"[2001:DB8::1]:8080", "2001:db8::1", 8080),
    ],
)
def test_connect_names_its_target(place: bytes, host: str, port: int):
    machine, events = talk(connect(place, b"Host: " + place, b"User-Agent: x"))
    assert events == [ConnectRequested(host, port)]
    assert machine.success == b"HTTP/1.1 200 Connection established\r\n\r\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (Reply.SUCCEEDED, 200),
        (Reply.NOT_ALLOWED, 403),
        (Reply.TIMED_OUT, 504),
        (Reply.REFUSED, 502),
        (Reply.HOST_UNREACHABLE, 502),
        (Reply.NETWORK_UNREACHABLE, 502),
        (Reply.GENERAL, 502),
    ],
)
def test_the_answer_says_what_went_wrong(code: Reply, expected: int):
    machine, _ = talk(connect(b"a:1"))
    answer = machine.answer(code)
    assert answer.startswith(b"HTTP/1.1 %d " % expected)
    head, _, body = answer.partition(b"\r\n\r\n")
    if expected != 200:
        assert b"Content-Length: %d\r\n" % len(body) in head
    with pytest.raises(RuntimeError, match="DONE"):
        machine.answer(code)


@pytest.mark.parametrize(
    "place",
    [b"a", b":80", b"a:", b"a:0", b"a:65536", b"a:-1", b"a:1e3", b"a:b:80", b"[::1:80", b"[x]:80",
     b"\xc3\xa4:80", b"http://a:80", b"a\x00:80", b"a:\xb2", b"a" * 256 + b":80"],
)  # fmt: skip
def test_what_is_no_place_is_a_bad_request(place: bytes):
    _, events = talk(connect(place))
    assert status(events) == 400


@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS", b"connect"])
def test_no_page_is_fetched(method: bytes):
    _, events = talk(method + b" http://example.com/ HTTP/1.1\r\n\r\n")
    assert status(events) == 405


@pytest.mark.parametrize(
    "head", [b"CONNECT a:1", b"CONNECT a:1 HTTP/2.0", b"CONNECT  a:1 HTTP/1.1"]
)
def test_what_is_no_http_is_a_bad_request(head: bytes):
    _, events = talk(head + b"\r\n\r\n")
    assert status(events) == 400


@pytest.mark.parametrize("text", [b"ann:se:cret", b"empty:"])
def test_the_right_password_opens(text: bytes):
    _, events = talk(connect(b"a:1", b"x: y", login(text)), USERS)
    assert events == [ConnectRequested("a", 1)]


@pytest.mark.parametrize(
    "line",
    [
        b"Accept: */*",
        login(b"ann:wrong"),
        login(b"ann"),
        login(b"bob:se:cret"),
        login(b":"),
        b"Proxy-Authorization: Bearer abc",
        b"Proxy-Authorization: Basic !!!!",
        b"Authorization: Basic " + base64.b64encode(b"ann:se:cret"),
    ],
)
def test_without_it_nothing_is_done(line: bytes):
    for request in (connect(b"a:1", line), b"GET / HTTP/1.1\r\n" + line + b"\r\n\r\n"):
        machine, events = talk(request, USERS)
        assert status(events) == 407
        assert b"Proxy-Authenticate: Basic" in events[0].data  # type: ignore[union-attr]
        assert machine.over


def test_what_stands_behind_the_request_is_the_stream():
    machine, _ = talk(connect(b"a:1") + b"early")
    assert machine.surplus == b"early"


def test_a_head_without_end_is_cut_off():
    machine = HttpConnect()
    assert machine.receive(b"CONNECT a:1 HTTP/1.1\r\n") == []
    events = [event for _ in range(20) for event in machine.receive(b"X: " + b"y" * 997 + b"\r\n")]
    assert status(events) == 431
    assert machine.over
    _, whole = talk(connect(b"a:1", b"X: " + b"y" * MAX_HEAD))
    assert status(whole) == 431


PLACES = st.sampled_from([b"a:1", b"[::1]:2", b"bad", b"x:0"])
LINES = st.lists(st.sampled_from([b"a: b", login(b"ann:se:cret"), b"", b"\r", b"\n"]), max_size=4)


@given(PLACES, LINES, st.binary(max_size=40), st.sampled_from([None, USERS]), st.data())
def test_pieces_of_any_size_say_the_same(
    place: bytes,
    lines: list[bytes],
    tail: bytes,
    users: dict[bytes, bytes] | None,
    data: st.DataObject,
):
    stream = connect(place, *lines) + tail
    whole, expected = talk(stream, users)
    at = data.draw(st.integers(0, stream.index(b"\r\n\r\n") + 3))
    machine = HttpConnect(users)
    events: list[Event] = []
    for piece in (bytes((byte,)) for byte in stream[:at]):
        events += machine.receive(piece)
    events += machine.receive(stream[at:])
    assert events == expected
    assert machine.surplus == whole.surplus


@given(st.lists(st.binary(max_size=3000), max_size=8), st.sampled_from([None, USERS]))
def test_garbage_ends_in_one_outcome_and_never_raises(
    pieces: list[bytes], users: dict[bytes, bytes] | None
):
    machine = HttpConnect(users)
    events = machine.receive(b"C") + [event for piece in pieces for event in machine.receive(piece)]
    ends = [event for event in events if not isinstance(event, Send)]
    assert len(ends) == machine.over
