"""Routes of a real mesh: standbys laid beforehand, managers that come and go, routes by hand, liars."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from bus import Bus, BusError, NotAuthorised, Refused, connect, keystore
from nodes import api
from nodes.client import connect_node
from nodes.manager.choosing import links
from tests.support.mesh import Mesh, both_ends, running_mesh

SQUARE = {"b": [], "c": [], "a": ["b", "c"], "d": ["b", "c"]}
LINKED = (("a", "b"), ("a", "c"), ("d", "b"), ("d", "c"))


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with running_mesh(SQUARE, spare=["evil"]) as mesh:
        asyncio.run(mesh.linked(*LINKED))
        yield mesh


@pytest.fixture(scope="module")
def shared() -> Iterator[Mesh]:
    """The same, for tests that leave it as it was."""
    with running_mesh(SQUARE, spare=["evil"]) as mesh:
        asyncio.run(mesh.linked(*LINKED))
        yield mesh


async def seen(bus: Bus) -> api.Nodes:
    return api.unpack(await bus.request(api.NODES), api.Nodes)


async def routes(bus: Bus, count: int, *, other_than: str = "") -> list[api.RouteInfo]:
    """Wait until so many stand, the active one first."""
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(BusError):
                found = (await seen(bus)).routes
                if len(found) == count and other_than not in {route.route for route in found}:
                    return sorted(found, key=lambda route: not route.active)
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def used(mesh: Mesh) -> AsyncIterator[Bus]:
    """A stream from a to d that works at the beginning and at the end."""
    async with (
        connect_node(mesh.socket("a")) as a,
        connect_node(mesh.socket("d")) as d,
        mesh.bus() as bus,
    ):
        near, far = await both_ends(a, d, 7)
        async with near, far:
            await near.write(b"before")
            assert await far.read() == b"before"
            yield bus
            await far.write(b"after")
            assert await near.read() == b"after"


async def test_a_standby_without_a_common_link_is_laid_beforehand(shared: Mesh) -> None:
    async with used(shared) as bus:
        active, standby = await routes(bus, 2)
        assert (active.active, standby.active) == (True, False)
        assert not links(active.path) & links(standby.path)


async def test_when_the_relay_dies_the_standby_is_the_active_route(mesh: Mesh) -> None:
    async with used(mesh) as bus:
        active, standby = await routes(bus, 2)
        (relay,) = [name for name in ("b", "c") if mesh.key(name) == active.path[1]]
        mesh.kill(relay)
        (left,) = await routes(bus, 1)
        assert (left.route, left.active) == (standby.route, True)
        # It comes back, and so does a standby.
        mesh.start_node(relay, *SQUARE[relay])
        await routes(bus, 2)


async def test_a_new_manager_adopts_the_routes_that_stand(mesh: Mesh) -> None:
    async with used(mesh) as bus:
        before = {route.route for route in await routes(bus, 2)}
        mesh.kill("manager")
        mesh.start_manager()
        await mesh.linked(*LINKED)
        assert {route.route for route in await routes(bus, 2)} == before


async def test_without_the_manager_the_standby_takes_over_by_itself(mesh: Mesh) -> None:
    async with used(mesh) as bus:
        active, _ = await routes(bus, 2)
        (relay,) = [name for name in ("b", "c") if mesh.key(name) == active.path[1]]
        mesh.kill("manager")
        mesh.kill(relay)


async def test_a_route_by_hand_is_used_until_it_is_freed(shared: Mesh) -> None:
    async with used(shared) as bus:
        active, standby = await routes(bus, 2)
        body = await bus.request(api.LAY, api.pack(api.Lay(standby.path)), timeout=10)
        laid = api.unpack(body, api.Route)
        assert laid.path in (standby.path, standby.path[::-1])
        why = await bus.request(api.WHY, api.pack(api.Pair("a", "d")))
        told = api.unpack(why, api.Why)
        assert told.by_hand
        assert {way.verdict for way in told.ways} >= {"active"}
        for _ in range(2):
            await bus.request(api.FREE, api.pack(api.Pair("a", "d")))
        assert active.path


@pytest.mark.parametrize(
    ("path", "err"),
    [
        (["a", "d"], "no_link"),
        (["a", "b", "a"], "loop"),
        (["a", "nobody"], "unknown_node"),
        (["a"], "bad_body"),
    ],
)
async def test_a_route_by_hand_must_be_possible(shared: Mesh, path: list[str], err: str) -> None:
    async with shared.bus() as bus:
        with pytest.raises(Refused) as caught:
            await bus.request(api.LAY, api.pack(api.Lay(path)))
        assert caught.value.err == err


@contextlib.asynccontextmanager
async def liar(mesh: Mesh) -> AsyncIterator[Bus]:
    """A node that registers with splendid links to all others, which know nothing of them."""
    pair = keystore.load(mesh.folder / "evil.key")
    async with connect(mesh.address, pair, name="evil", timeout=15) as bus:
        claimed = [api.LinkState(mesh.key(name), rtt=1e-6, rate=1e12) for name in SQUARE]
        report = api.Registration("evil", "tcp://127.0.0.1:1", bytes(16), 0, 0, claimed)
        await bus.request(api.REGISTER, api.pack(report))
        yield bus


async def test_a_node_that_lies_about_its_links_gets_no_traffic(shared: Mesh) -> None:
    async with liar(shared), used(shared) as bus:
        evil = shared.key("evil")
        (node,) = [node for node in (await seen(bus)).nodes if node.key == evil]
        assert node.links == []
        assert sorted(node.claimed) == sorted(shared.key(name) for name in SQUARE)
        assert all(evil not in route.path for route in await routes(bus, 2))


async def test_what_is_no_key_is_not_taken_for_one(shared: Mesh) -> None:
    async with liar(shared) as evil:
        junk = "\x1b[2J" + "x" * 36
        link = api.Registration("evil", "", bytes(16), 0, 0, [api.LinkState(junk)])
        route = api.Standing([api.StandingRoute("00" * 8, [shared.key("evil"), junk], True)])
        for subject, body in ((api.REGISTER, link), (api.STANDING, route)):
            with pytest.raises(Refused) as caught:
                await evil.request(subject, api.pack(body))
            assert caught.value.err == "bad_body"


async def test_a_node_cannot_disturb_the_routes_of_others(shared: Mesh) -> None:
    async with used(shared) as bus, liar(shared) as evil:
        before = await routes(bus, 2)
        for route in before:
            for unused in (False, True):
                given = api.Release(route.route, "a lie", shared.key("b"), unused)
                await evil.request(api.RELEASE, api.pack(given))
            said = api.StandingRoute(route.route, [shared.key("evil"), shared.key("d")], True)
            await evil.request(api.STANDING, api.pack(api.Standing([said])))
        assert [r.route for r in await routes(bus, 2)] == [r.route for r in before]


@pytest.mark.parametrize("registered", [True, False])
async def test_a_node_has_no_say_in_which_ways_are_good(shared: Mesh, registered: bool) -> None:
    """Also not one that is silent, so that the manager does not know it for a node."""
    evil = connect(shared.address, keystore.load(shared.folder / "evil.key"), name="evil")
    async with liar(shared) if registered else evil as bus:
        for subject, body in (
            (api.POLICY, api.Wanted("a", "d", api.Policy(avoid=["b"]))),
            (api.LAY, api.Lay(["a", "b", "d"])),
            (api.FREE, api.Pair("a", "d")),
        ):
            with pytest.raises(NotAuthorised):
                await bus.request(subject, api.pack(body))


async def test_a_node_cannot_tell_the_others_what_the_manager_would(shared: Mesh) -> None:
    async with liar(shared) as evil, shared.bus() as bus:
        heard = await bus.subscribe(api.EVENT_MANAGER)
        await evil.publish(api.EVENT_MANAGER, b"forged")
        await evil.request(api.RESOLVE, api.pack(api.Query("a")))  # the broker has seen it by now
        await bus.publish(api.EVENT_MANAGER, b"an admin may")
        assert (await anext(aiter(heard))).body == b"an admin may"


@pytest.mark.parametrize(
    ("policy", "err", "word"),
    [
        (api.Policy("widest", must=["c"], avoid=["c"]), "no_route", "policy"),
        (api.Policy(avoid=["bb"]), "unknown_node", "bb"),
    ],
)
async def test_a_policy_that_cannot_be_met_is_refused_by_name(
    shared: Mesh, policy: api.Policy, err: str, word: str
) -> None:
    async with shared.bus() as bus:
        wanted = api.pack(api.Wanted("a", "d", policy))
        with pytest.raises(Refused) as caught:
            await bus.request(api.POLICY, wanted, timeout=10)
        assert caught.value.err == err
        assert word in str(caught.value)
        await bus.request(api.POLICY, api.pack(api.Wanted("a", "d", api.Policy())), timeout=10)


async def wish(bus: Bus) -> api.Wish:
    """The only one that there is."""
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(BusError):
                found = api.unpack(await bus.request(api.WISHES), api.Wishes)
                (only,) = found.wishes
                return only
            await asyncio.sleep(0.05)


async def test_a_policy_outlives_the_manager_and_both_ends(mesh: Mesh) -> None:
    policy = api.Policy("shortest", must=["c"])
    async with used(mesh) as bus:
        wanted = api.pack(api.Wanted("d", "a", policy))
        laid = api.unpack(await bus.request(api.POLICY, wanted, timeout=10), api.Route)
        assert laid.path == [mesh.key(name) for name in "acd"] or laid.path[::-1] == [
            mesh.key(name) for name in "acd"
        ]
        kept = await wish(bus)
        assert (kept.policy.metric, kept.policy.must) == ("shortest", [mesh.key("c")])
    for name in ("manager", "a", "d"):
        mesh.kill(name)
    mesh.start_manager()
    for name in "ad":
        mesh.start_node(name, *SQUARE[name])
    await mesh.linked(*LINKED)
    async with used(mesh) as bus:
        (active,) = [route for route in (await seen(bus)).routes if route.active]
        assert active.path[1] == mesh.key("c")
        assert await wish(bus) == kept
        ends = api.pack(api.Wanted("a", "d", api.Policy()))
        await bus.request(api.POLICY, ends, timeout=10)
        assert not api.unpack(await bus.request(api.WISHES), api.Wishes).wishes


async def test_a_damaged_file_of_policies_is_not_taken_for_an_empty_one(mesh: Mesh) -> None:
    mesh.kill("manager")
    (mesh.folder / "ways.json").write_text('{"version": 1, "wishes": [{"a": "x"}]}')
    mesh.start_manager()
    process = mesh.processes.pop("manager")
    assert process.wait(20) == 8
    assert "ways.json is damaged" in mesh.log("manager")


async def test_a_node_that_is_started_again_gets_new_routes(mesh: Mesh) -> None:
    async with used(mesh) as bus:
        old = await routes(bus, 2)
    mesh.kill("d")
    mesh.start_node("d", *SQUARE["d"])
    await mesh.linked(*LINKED)
    async with used(mesh) as bus:
        new = await routes(bus, 2)
        assert not {route.route for route in new} & {route.route for route in old}
