"""Strangers and liars at every door of a node; after each the node works as before."""

import array
import asyncio
import contextlib
import os
import socket
import stat
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from bus import Bus, KeyPair, Refused, connect, keystore, sockets
from nodes import api, local, wire
from nodes.client import Code, connect_node
from nodes.orders import Install, Receiver
from tests.support.mesh import Mesh, running_mesh

NAMES = {"a": [], "b": ["a"]}


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with running_mesh(NAMES, spare=["evil"]) as mesh:
        asyncio.run(mesh.linked(("a", "b")))
        yield mesh


async def works(mesh: Mesh) -> None:
    """The node still carries streams."""
    async with connect_node(mesh.socket("a")) as a, connect_node(mesh.socket("b")) as b:
        listener = await b.listen(7)

        async def echo() -> None:
            async with await (await anext(listener)).accept() as stream:
                await stream.write(await stream.read())

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(echo())
            async with await a.open_stream("b", 7) as stream:
                await stream.write(b"alive")
                assert await stream.read() == b"alive"


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(15):
        while not holds():
            await asyncio.sleep(0.05)


def descriptors(mesh: Mesh, name: str) -> int:
    return len(list(Path(f"/proc/{mesh.processes[name].pid}/fd").iterdir()))


# Neighbours ------------------------------------------------------------------------------------


class Peer:
    """A DEALER of our own making."""

    def __init__(self, endpoint: str, server: str, pair: KeyPair, rid: bytes) -> None:
        self.context = sockets.new_context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        if rid:
            self.socket.setsockopt(zmq.ROUTING_ID, rid)
        self.socket.setsockopt_string(zmq.CURVE_SERVERKEY, server)
        self.socket.setsockopt_string(zmq.CURVE_PUBLICKEY, pair.public)
        self.socket.setsockopt_string(zmq.CURVE_SECRETKEY, pair.secret)
        self.monitor = sockets.watch(self.socket)
        self.socket.connect(endpoint)

    async def told(self, kind: int, within: float = 5) -> bool:
        """Whether the monitor tells of `kind`."""
        deadline = asyncio.get_running_loop().time() + within
        while asyncio.get_running_loop().time() < deadline:
            if any(event.kind & kind for event in sockets.events(self.monitor)):
                return True
            await asyncio.sleep(0.01)
        return False

    async def receive(self) -> bytes:
        for _ in range(500):
            with contextlib.suppress(zmq.Again):
                return self.socket.recv(zmq.DONTWAIT)
            await asyncio.sleep(0.01)
        raise AssertionError("nothing came")

    def close(self) -> None:
        sockets.close(self.socket)
        self.monitor.close(linger=0)
        self.context.destroy(linger=0)


GOOD_RID = b"\x01" + bytes(range(16))


@contextlib.asynccontextmanager
async def dialling(
    mesh: Mesh, pair: KeyPair, rid: bytes = GOOD_RID, *, expected: bool = True
) -> AsyncIterator[Peer]:
    """A connection to node a as `evil`, whom the manager announced if `expected`."""
    async with connect(mesh.address, keystore.load(mesh.folder / "evil.key"), name="evil") as bus:
        endpoint = await endpoint_of(bus, mesh, expected=expected)
    peer = Peer(endpoint, mesh.key("a"), pair, rid)
    try:
        yield peer
    finally:
        peer.close()


async def endpoint_of(bus: Bus, mesh: Mesh, *, expected: bool) -> str:
    if not expected:
        async with mesh.bus() as operator:  # nodes may not look at the mesh
            nodes = api.unpack(await operator.request(api.NODES), api.Nodes).nodes
        return next(node.endpoint for node in nodes if node.name == "a")
    report = api.Registration("evil", "tcp://127.0.0.1:1", bytes(16), 0, 0)
    await bus.request(api.REGISTER, api.pack(report))
    body = await bus.request(api.DIAL, api.pack(api.Query("a")))
    return api.unpack(body, api.Dial).endpoint


async def test_a_key_the_manager_did_not_announce_does_not_get_in(mesh: Mesh) -> None:
    async with dialling(mesh, sockets.new_keypair(), expected=False) as peer:
        assert await peer.told(sockets.HANDSHAKE_REFUSED)
    await works(mesh)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        os.urandom(100),
        wire.frame(wire.FrameType.ALIVE),
        wire.frame(wire.FrameType.DATA, 1, 1, b"x" * 100),
        wire.hello("x" * 40, "somebody else"),
        wire.frame(wire.FrameType.HELLO, payload=b"\x91" * 1000),
        b"\x31" + wire.hello("x" * 40, "of version 3")[1:],
    ],
    ids=["empty", "random", "alive", "data", "foreign-key", "nested", "version-3"],
)
async def test_whoever_does_not_begin_with_hello_is_cut(mesh: Mesh, first: bytes) -> None:
    async with dialling(mesh, keystore.load(mesh.folder / "evil.key")) as peer:
        peer.socket.send(first)
        assert await peer.told(sockets.DISCONNECTED)
    await works(mesh)
    assert (await mesh.status("a")).counters["bad_hello"] >= 1


async def test_a_routing_id_that_can_be_guessed_is_refused(mesh: Mesh) -> None:
    pair = keystore.load(mesh.folder / "evil.key")
    async with dialling(mesh, pair, rid=b"short") as peer:
        peer.socket.send(wire.hello(pair.public, "evil"))
        assert await peer.told(sockets.DISCONNECTED)


@pytest.mark.parametrize(
    "parts",
    [[os.urandom(50)], [b"\x22" + bytes(70_000)], [b"one", b"two", b"three"]],
    ids=["random", "oversized", "several-parts"],
)
async def test_a_neighbour_that_turns_bad_is_cut(mesh: Mesh, parts: list[bytes]) -> None:
    pair = keystore.load(mesh.folder / "evil.key")
    async with dialling(mesh, pair) as peer:
        peer.socket.send(wire.hello(pair.public, "evil"))
        hello = wire.parse_hello(memoryview(await peer.receive())[16:])
        assert hello.key == mesh.key("a")
        assert pair.public in (await mesh.status("a")).links
        peer.socket.send_multipart(parts)
        assert await peer.told(sockets.DISCONNECTED)
    await works(mesh)
    assert pair.public not in (await mesh.status("a")).links


async def test_labels_of_others_are_worth_nothing(mesh: Mesh) -> None:
    pair = keystore.load(mesh.folder / "evil.key")
    async with dialling(mesh, pair) as peer:
        peer.socket.send(wire.hello(pair.public, "evil"))
        await peer.receive()
        before = (await mesh.status("a")).counters.get("unknown_label", 0)
        for label in range(200):
            peer.socket.send(wire.frame(wire.FrameType.DATA, label, 1, b"x" * 20))
            peer.socket.send(wire.close(label, Code.RESET))
        await works(mesh)
        assert (await mesh.status("a")).counters["unknown_label"] == before + 400


async def test_only_orders_that_the_manager_signed_are_obeyed(mesh: Mesh) -> None:
    """The admin may send what it likes; it cannot sign for the manager."""
    evil = keystore.load(mesh.folder / "evil.key")
    there = Receiver(mesh.key("a"), bytes(16), 0, time.monotonic(), 1 << 40)
    order = Install(mesh.key("b"), mesh.key("b"))
    signed = there.sign(evil.secret, "00" * 8, order, time.monotonic())
    async with mesh.bus() as bus:
        for forged, err in (
            (api.pack(signed), "bad_signature"),
            (api.pack(msgspec.structs.replace(signed, signature=bytes(64))), "bad_signature"),
            (b"\xc1", "bad_body"),
            (os.urandom(64), "bad_body"),
        ):
            with pytest.raises(Refused) as caught:
                await bus.request(api.ORDER, forged, to=mesh.key("a"))
            assert caught.value.err == err
    await works(mesh)


async def test_a_node_obeys_the_manager_it_knows_and_no_other(mesh: Mesh) -> None:
    pin = mesh.folder / "node-a.manager"
    assert pin.read_text().strip() == mesh.key("manager")
    mesh.kill("a")
    pin.write_text(mesh.key("evil") + "\n")
    try:
        mesh.start_node("a")
        await eventually(lambda: "remove" in mesh.log("a") and str(pin) in mesh.log("a"))
    finally:
        mesh.kill("a")
        pin.unlink()
        mesh.start_node("a")
    await mesh.linked(("a", "b"))
    await works(mesh)


async def test_the_manager_refuses_malformed_bodies_by_name(mesh: Mesh) -> None:
    async with mesh.bus() as bus:
        for subject in (api.REGISTER, api.ROUTE, api.LINK, api.RELEASE, api.DIAL, api.STANDING):
            for body in (b"", b"\xc1", os.urandom(64), b"\x91" * 3000):
                with pytest.raises(Refused) as caught:
                    await bus.request(subject, body)
                assert caught.value.code in {400, 409}
    await works(mesh)


# Local programs --------------------------------------------------------------------------------


def connect_raw(mesh: Mesh) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(mesh.socket("a")))
    sock.settimeout(5)
    return sock


HELLO = local.encode(local.Hello(1, "test"))


def read_message(sock: socket.socket) -> object:
    (size,) = struct.unpack(">I", sock.recv(4, socket.MSG_WAITALL))
    return local.decode_from_node(sock.recv(size, socket.MSG_WAITALL))


def test_the_local_socket_is_this_users_alone(mesh: Mesh) -> None:
    assert stat.S_IMODE(mesh.socket("a").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 64,
        struct.pack(">I", 5) + b"\xc1junk",
        local.encode(local.Listen(1, 80)),
        local.encode(local.Hello(99)),
        HELLO + HELLO,
        HELLO + local.encode(local.Attach(1)),
        HELLO + local.encode(local.Welcome(1, "", "")),
    ],
    ids=["http", "length", "junk", "no-hello", "version", "twice", "no-descriptor", "wrong-way"],
)
async def test_an_app_that_speaks_nonsense_is_cut(mesh: Mesh, sent: bytes) -> None:
    with connect_raw(mesh) as sock:
        sock.sendall(sent)
        while heard := await asyncio.to_thread(sock.recv, 4096):
            pass
        assert heard == b""
    await works(mesh)


async def test_descriptors_that_nobody_claims_are_closed(mesh: Mesh) -> None:
    await works(mesh)
    with connect_raw(mesh) as sock:
        sock.sendall(HELLO)
        await asyncio.to_thread(read_message, sock)
        before = descriptors(mesh, "a")
        extra = [os.open("/dev/null", os.O_RDONLY) for _ in range(8)]
        for message in (local.encode(local.Reset(1)), local.encode(local.Attach(77))):
            rights = array.array("i", extra)
            sock.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        await asyncio.sleep(0.3)
        assert descriptors(mesh, "a") == before
        for descriptor in extra:
            os.close(descriptor)


async def test_a_descriptor_that_is_no_socket_resets_its_stream_only(mesh: Mesh) -> None:
    async with connect_node(mesh.socket("a")) as a, connect_node(mesh.socket("b")) as b:
        listener = await b.listen(7)

        async def accept() -> None:
            await (await (await anext(listener)).accept()).aclose()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(accept())
            opened = await a.open("b", 7)
        with Path("/dev/null").open("rb") as file:
            flow = await opened.attach(file)
        assert (await flow.closed()).code is Code.TARGET_RESET
    await works(mesh)
