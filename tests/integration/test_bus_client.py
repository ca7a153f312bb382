"""The asyncio and the blocking client against the real broker."""

import asyncio
import contextlib

import pytest

from bus import (
    Address,
    Bus,
    DeadlineExceeded,
    LocalProtocolError,
    Message,
    NotAuthorised,
    NotPresent,
    Overflow,
    Refused,
    Request,
    Unreachable,
    connect,
    keystore,
    sockets,
)
from bus.caller import Caller
from bus.signals import INFO
from tests.support.broker import running_broker
from tests.support.joined import eventually, joined
from tests.support.stack import free_port

# Connecting.


async def test_connecting_proves_the_key_and_tells_the_roles() -> None:
    with running_broker(alice="app") as broker:
        async with joined(broker, "alice") as bus:
            assert (bus.key, bus.roles, bus.connected) == (
                broker.keys["alice"].public,
                ["app"],
                True,
            )


async def test_a_key_that_is_not_allowed_is_told_clearly_by_both_clients() -> None:
    with running_broker() as broker:
        stranger = keystore.create(broker.folder / "stranger.key")
        problem = f"the broker at {broker.address.endpoint} does not allow the key "
        with pytest.raises(NotAuthorised) as caught:
            async with connect(broker.address, stranger):
                pass
        assert str(caught.value) == problem + stranger.public
        with pytest.raises(NotAuthorised) as caught:
            Caller(broker.address, stranger).__enter__()
        assert str(caught.value) == problem + stranger.public


async def test_no_broker_is_unreachable_and_names_the_endpoint() -> None:
    with running_broker(alice="app") as broker:
        nowhere = Address(f"tcp://127.0.0.1:{free_port()}", broker.address.key)
        with pytest.raises(Unreachable, match=f"no broker answers at {nowhere.endpoint}"):
            async with connect(nowhere, broker.keys["alice"], timeout=0.5):
                pass
        with pytest.raises(Unreachable, match=f"no broker answers at {nowhere.endpoint}"):
            Caller(nowhere, broker.keys["alice"], timeout=0.5).__enter__()


async def test_a_broker_with_another_key_is_never_talked_to() -> None:
    with running_broker(alice="app", bob="app") as broker:
        false = Address(broker.address.endpoint, broker.keys["bob"].public)
        with pytest.raises(Unreachable):
            async with connect(false, broker.keys["alice"], timeout=1.0):
                pass


# Requests.


async def test_requests_are_answered_by_services_and_by_participants() -> None:
    async def clock(request: Request) -> bytes:
        return b"service " + request.sender.encode() + request.body

    with running_broker(alice="operator", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            await bob.serve("app.clock.*", clock)
            bob.answer("app.clock.now", lambda request: b"participant " + request.body)
            own = alice.key.encode()
            assert await alice.request("app.clock.now", b"?") == b"service " + own + b"?"
            assert await alice.request("app.clock.now", b"!", to=bob.key) == b"participant !"
            with Caller(broker.address, broker.keys["alice"]) as caller:
                assert (
                    await asyncio.to_thread(caller.request, "app.clock.now", b"", to=bob.key)
                    == b"participant "
                )


async def test_what_goes_wrong_with_a_request_is_told_by_kind() -> None:
    async def handler(request: Request) -> bytes:
        match request.body:
            case b"refuse":
                raise Refused(409, "conflict", "being set")
            case b"break":
                raise RuntimeError("secret detail")
            case _:
                await asyncio.sleep(60)
        return b""

    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            await bob.serve("app.x", handler)
            with pytest.raises(Refused, match="being set") as refused:
                await alice.request("app.x", b"refuse")
            assert (refused.value.code, refused.value.err) == (409, "conflict")
            with pytest.raises(Refused) as broken:
                await alice.request("app.x", b"break")
            assert (broken.value.code, "secret" in str(broken.value)) == (500, False)
            with pytest.raises(DeadlineExceeded):
                await alice.request("app.x", b"sleep", timeout=0.2)
            with pytest.raises(NotPresent, match=r"nobody serves app.nothing"):
                await alice.request("app.nothing")
            with pytest.raises(NotAuthorised, match=r"request mesh.x: not allowed to role app"):
                await alice.request("mesh.x")
            with pytest.raises(LocalProtocolError):
                await alice.request("app.*")


async def test_a_participant_answers_what_it_does_not_know() -> None:
    with running_broker(alice="operator", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            with pytest.raises(Refused, match=r"does not answer app.unknown") as caught:
                await alice.request("app.unknown", to=bob.key)
            assert caught.value.err == "no_handler"


async def test_a_worker_that_dies_fails_its_requests_at_once() -> None:
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice:
            async with joined(broker, "bob") as bob:
                await bob.serve("app.x", lambda _: asyncio.sleep(60, b""))
                pending = asyncio.create_task(alice.request("app.x", timeout=30))
                await asyncio.sleep(0.1)
            with pytest.raises(NotPresent, match="bob left before it replied"):
                await pending


async def test_a_thousand_requests_at_once_are_each_answered_with_their_own() -> None:
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            await bob.serve("app.echo", lambda request: request.body)
            bodies = [b"%d" % n for n in range(1000)]
            answers = await asyncio.gather(*(alice.request("app.echo", b) for b in bodies))
            assert answers == bodies


async def test_full_pipes_are_filled_again_as_soon_as_they_have_room() -> None:
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            await bob.serve("app.echo", lambda request: request.body)
            bodies = [b"%d" % n for n in range(1000)]
            for _ in range(10):  # a round takes 40 ms; a missed edge stood for up to 5 s
                asked = (alice.request("app.echo", body, timeout=2) for body in bodies)
                assert await asyncio.gather(*asked) == bodies


# Signals, topics.


async def test_signals_reach_the_participant_and_say_who_sent_them() -> None:
    heard: list[Message] = []
    with running_broker(alice="operator", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            bob.on_signal("app.wake", heard.append)
            await alice.signal(bob.key, "app.wake", b"now")
            await eventually(lambda: heard)
            assert heard == [Message("app.wake", alice.key, b"now")]
            with pytest.raises(NotPresent):
                await alice.signal("0" * 40, "app.wake")


async def test_a_hundred_thousand_messages_arrive_in_order() -> None:
    count = 100_000
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            subscription = await bob.subscribe("topic.>")

            async def publish() -> None:
                for number in range(count):
                    await alice.publish(f"topic.{number // 1000 % 2}", b"%d" % number)

            publishing = asyncio.create_task(publish())
            expected = 0
            async for message in subscription:
                assert message.body == b"%d" % expected
                assert message.sender == alice.key
                expected += 1
                if expected == count:
                    break
            await publishing
            assert subscription.lost == 0


async def test_bodies_of_every_size_arrive_whole() -> None:
    sizes = [0, 1, 4095, 4096, 32 << 10, (32 << 10) + 1, 1 << 20]
    with running_broker(alice="app") as broker:
        async with joined(broker, "alice") as bus:
            subscription = await bus.subscribe("topic.x")
            for size in sizes:
                await bus.publish("topic.x", bytes(size))
            got = [len((await anext(subscription)).body) for _ in sizes]
            assert got == sizes
            with pytest.raises(LocalProtocolError, match="over the broker's limit"):
                await bus.publish("topic.x", bytes((1 << 20) + 1))


async def test_two_sessions_of_one_key_both_subscribe_and_both_hear() -> None:
    with running_broker(alice="app") as broker:
        async with joined(broker, "alice") as one, joined(broker, "alice") as two:
            subscriptions = [await bus.subscribe("topic.x") for bus in (one, two)]
            await one.publish("topic.x", b"hello")
            for subscription in subscriptions:
                assert (await anext(subscription)).body == b"hello"


async def test_a_closed_subscription_ends_its_iteration() -> None:
    with running_broker(alice="app") as broker:
        async with joined(broker, "alice") as bus:
            subscription = await bus.subscribe("topic.x")
            await subscription.close()
            assert [m async for m in subscription] == []


async def test_what_is_not_allowed_is_told_by_subscribe_and_serve() -> None:
    with running_broker(alice="app") as broker:
        async with joined(broker, "alice") as bus:
            with pytest.raises(NotAuthorised, match="subscribe >"):
                await bus.subscribe(">")
            with pytest.raises(NotAuthorised, match=r"serve mesh.x"):
                await bus.serve("mesh.x", lambda _: b"")
            assert bus.connected


# The broker goes and comes back.


def fill(bus: Bus) -> int:
    """Publish until the buffer is full; give the number of messages that it took."""
    for number in range(100):
        try:
            bus.publish_nowait("topic.x", b"%d" % number + bytes(1 << 19))
        except Overflow:
            return number
    raise AssertionError("the send buffer has no bound")


async def test_after_a_kill_the_client_is_back_by_itself_with_all_it_had() -> None:
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            subscription = await alice.subscribe("topic.x")
            await bob.serve("app.echo", lambda request: request.body)
            back: list[str] = []
            alice.on_reconnect(lambda: back.append("alice"))
            broker.kill()
            await eventually(lambda: not alice.connected and not bob.connected)
            waiting = asyncio.create_task(alice.request("app.echo", b"waited", timeout=20))
            await asyncio.sleep(0.05)
            broker.start()
            await asyncio.wait_for(asyncio.gather(alice.wait_connected(), bob.wait_connected()), 10)
            with contextlib.suppress(NotPresent):  # if bob came back after alice
                assert await waiting == b"waited"
            await eventually(lambda: back == ["alice"])
            assert await alice.request("app.echo", b"again") == b"again"
            await bob.publish("topic.x", b"hello again")
            assert (await anext(subscription)).body == b"hello again"


async def test_a_request_under_way_when_the_broker_dies_is_unknown() -> None:
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            started = asyncio.Event()

            async def slow(_request: Request) -> bytes:
                started.set()
                await asyncio.sleep(60)
                return b""

            await bob.serve("app.slow", slow)
            pending = asyncio.create_task(alice.request("app.slow", timeout=30))
            await asyncio.wait_for(started.wait(), 10)
            broker.kill()
            with pytest.raises(Unreachable, match=r"request app.slow: .*result unknown"):
                await pending


async def test_a_broker_that_stops_cleanly_is_told_as_such() -> None:
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            await bob.serve("app.slow", lambda _: asyncio.sleep(60, b""))
            pending = asyncio.create_task(alice.request("app.slow", timeout=30))
            await asyncio.sleep(0.1)
            broker.stop()
            with pytest.raises((Unreachable, NotPresent)):
                await pending
            await eventually(lambda: not alice.connected)


async def test_what_was_published_while_away_is_bounded_and_sent_when_back() -> None:
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice:
            subscription = await alice.subscribe("topic.x")
            broker.kill()
            await eventually(lambda: not alice.connected)
            kept = fill(alice)
            assert 1 <= kept <= 20
            broker.start()
            await asyncio.wait_for(alice.wait_connected(), 10)
            for number in range(kept):
                assert (await anext(subscription)).body.rstrip(b"\0") == b"%d" % number


async def test_a_mistake_of_our_own_is_told_here_and_costs_no_connection() -> None:
    with running_broker(alice="operator") as broker:
        async with joined(broker, "alice") as alice:
            with pytest.raises(LocalProtocolError, match="not a key in Z85 form: 'bob'"):
                await alice.request("signal.ping", to="bob")
            with pytest.raises(LocalProtocolError, match="not a key"):
                await alice.signal("bob", "app.x")
            with pytest.raises(LocalProtocolError, match="a body is bytes, not str"):
                await alice.publish("app.x", "text")  # type: ignore[arg-type]
            await alice.request("$SYS.info", timeout=1e9)
            assert alice.connected
        with Caller(broker.address, broker.keys["alice"], name="x" * 200) as caller:
            with pytest.raises(LocalProtocolError, match="not a subject"):
                caller.request("a" * 300)
            caller.request("$SYS.info")


async def test_a_revoked_key_is_disconnected_and_let_in_again_when_allowed() -> None:
    with running_broker(alice="app") as broker:
        async with joined(broker, "alice") as alice:
            broker.forbid("alice")
            broker.reload()
            await eventually(lambda: not alice.connected)
            broker.allow("alice", "app")
            broker.reload()
            await asyncio.wait_for(alice.wait_connected(), 10)
            assert alice.connected


async def test_leaving_tells_the_others_and_frees_everything() -> None:
    with running_broker(alice="app", watch="operator") as broker:
        async with joined(broker, "watch") as watch:
            presence = await watch.subscribe("$SYS.presence.*")
            async with joined(broker, "alice"):
                assert b"online" in (await anext(presence)).body
            assert b"offline" in (await anext(presence)).body


def test_a_blocking_client_whose_last_answer_came_with_the_end_of_the_broker_knows_of_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        running_broker(alice="operator") as broker,
        Caller(broker.address, broker.keys["alice"]) as caller,
    ):
        assert caller.request(INFO)
        events = sockets.events

        def late(monitor: sockets.Socket) -> list:
            """As if we had not been given the processor since the answer was read."""
            broker.kill()
            sockets.wait([monitor], 10)
            return events(monitor)

        monkeypatch.setattr(sockets, "events", late)
        assert caller.request(INFO)
        monkeypatch.undo()
        with pytest.raises(Unreachable):
            caller.request(INFO, timeout=3)
