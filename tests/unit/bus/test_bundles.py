"""Several messages in one, in both directions."""

import pytest

from bus import wire
from bus.errors import RemoteProtocolError
from bus.session import ClientSession
from tests.support.dialogue import Table


def bundle(*messages: tuple[bytes, bytes | None]) -> tuple[bytes, bytes]:
    parts = [part for message in messages for part in message]
    return wire.pack_bundle(wire.Bundle, parts)


def test_each_message_of_a_bundle_is_carried_out_in_order() -> None:
    alice = Table(alice="app").join("alice")
    head, body = bundle(
        (wire.encode(wire.Subscribe(1, 7, "app.a")), None),
        (wire.encode(wire.Publish("app.a")), b"hello"),
        (wire.encode(wire.Ping(9)), None),
    )
    ok, delivery, pong = alice.say_raw(head, body)
    assert ok == wire.Ok(1)
    assert isinstance(delivery, wire.Delivery)
    assert isinstance(pong, wire.Pong)


def test_what_is_refused_in_a_bundle_does_not_touch_the_rest() -> None:
    alice = Table(alice="app").join("alice")
    head, body = bundle(
        (wire.encode(wire.Publish("secret.a", id=3)), b""), (wire.encode(wire.Ping(9)), None)
    )
    error, pong = alice.say_raw(head, body)
    assert isinstance(error, wire.Error)
    assert (error.err, error.ref) == ("denied", 3)
    assert isinstance(pong, wire.Pong)


def test_nothing_after_the_end_of_the_session_is_carried_out() -> None:
    table = Table(alice="app", bob="app")
    bob, alice = table.join("bob"), table.join("alice")
    bob.say(wire.Subscribe(1, 1, "app.a"))
    head, body = bundle(
        (wire.encode(wire.Bye()), None), (wire.encode(wire.Publish("app.a")), b"late")
    )
    alice.say_raw(head, body)
    assert bob.hears() == []


def test_garbage_in_a_bundle_ends_the_session_as_garbage_does() -> None:
    alice = Table(alice="app").join("alice")
    head, body = bundle((b"junk", None))
    error, goodbye = alice.say_raw(head, body)
    assert isinstance(error, wire.Error)
    assert isinstance(goodbye, wire.Goodbye)
    assert error.num == goodbye.num == 400


def test_a_bundle_in_a_bundle_is_refused() -> None:
    alice = Table(alice="app").join("alice")
    inner = bundle((wire.encode(wire.Ping()), None))
    [error] = alice.say_raw(*bundle(inner))
    assert isinstance(error, wire.Error)
    assert error.err == "bad_request"


@pytest.mark.parametrize(
    "body", [b"", b"\x80", b"\x91\xc4\x00", b"\x92\xc4\x00\xa1a", b"\x94" + b"\xc4\x00" * 4]
)
def test_a_body_that_is_not_what_was_announced_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="bundle"):
        wire.unpack_bundle(body, 1)


def test_a_client_opens_a_bundle_and_leaves_other_messages_alone() -> None:
    session = ClientSession("alice")
    pong = wire.encode(wire.Pong(1, 2))
    head, body = wire.pack_bundle(wire.BundleDelivery, [pong, None, pong, b"x"])
    assert session.messages(head, body) == [(pong, None), (pong, b"x")]
    assert session.messages(pong, b"y") == [(pong, b"y")]
