"""A machine behind a VPN: a namespace `c` with a node and the client, joined to the exit's node `e`.

`e` is also the router of `c` and has some addresses of the internet, so that whatever leaves `c` arrives
somewhere. What leaves is captured at the far ends of both cables: that to `e`, and that to the bus.
Needs root, iproute2, nftables and tcpdump.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from apps.vpn import messages
from nodes import api
from nodes.client import Incoming, NodeError, Stream, connect_node
from tests.support.namespaces import Namespaces, SpreadMesh, ip

PATIENCE = 40.0
ROUTER4, ROUTER6 = "203.0.113.1", "2001:db8:99::1"
HOST4, HOST6 = "203.0.113.2", "2001:db8:99::2"
INTERNET = ("8.8.8.8", "198.51.100.7", "2001:4860:4860::8888")
RESOLV = "search example.org\nnameserver 8.8.8.8\n"
NOISE_PORTS = range(20_000, 20_500)  # from where noise comes: links never do


@dataclass(frozen=True)
class Seen:
    """A packet that left the machine."""

    proto: int
    source: str
    target: str
    sport: int = 0
    dport: int = 0
    kind: int = 0  # of ICMP


def captured(file: Path) -> Iterator[Seen]:
    """The IP packets of a capture (Ethernet)."""
    data = file.read_bytes()
    at = 24
    while at + 16 <= len(data):
        _, _, size, _ = struct.unpack_from("<4I", data, at)
        frame = data[at + 16 : at + 16 + size]
        at += 16 + size
        if len(frame) < 34:
            continue
        (ethertype,) = struct.unpack_from(">H", frame, 12)
        if ethertype == 0x0800:
            start = 14 + (frame[14] & 15) * 4
            yield _seen(frame[23], frame[26:30], frame[30:34], frame[start:])
        elif ethertype == 0x86DD and len(frame) >= 54:
            proto, rest = frame[20], frame[54:]
            if proto == 0 and len(rest) > 8:  # hop-by-hop options, of MLD
                proto, rest = rest[0], rest[8 * (rest[1] + 1) :]
            yield _seen(proto, frame[22:38], frame[38:54], rest)


def _seen(proto: int, source: bytes, target: bytes, rest: bytes) -> Seen:
    ends = str(ip_address(source)), str(ip_address(target))
    if proto in {6, 17} and len(rest) >= 4:
        return Seen(proto, *ends, *struct.unpack_from(">HH", rest))
    return Seen(proto, *ends, kind=rest[0] if rest else 0)


NOISE = """\
# Sends to everywhere, all the time, as programs do that know nothing of a VPN.
import itertools, socket, struct, sys, time
targets = sys.argv[1:]
ports = itertools.cycle(range(20000, 20500))
turn = 0
echo = {4: (socket.AF_INET, 1, 8), 6: (socket.AF_INET6, 58, 128)}
waiting = []
while True:
    for target in targets:
        six = ":" in target
        family = socket.AF_INET6 if six else socket.AF_INET
        for kind, port in ((socket.SOCK_DGRAM, 53), (socket.SOCK_DGRAM, 443), (socket.SOCK_STREAM, 53),
                           (socket.SOCK_STREAM, 853), (socket.SOCK_STREAM, 443)):
            with socket.socket(family, kind) as sock:
                try:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind(("", next(ports)))
                    sock.setblocking(False)
                    if kind == socket.SOCK_DGRAM:
                        sock.sendto(b"leak", (target, port))
                    else:
                        sock.connect((target, port))
                except OSError:
                    pass
        kind = echo[6 if six else 4]
        with socket.socket(kind[0], socket.SOCK_RAW, kind[1]) as sock:
            try:
                sock.sendto(struct.pack(">BBHHH", kind[2], 0, 0xF7FF - 0, 0, 0), (target, 0))
            except OSError:
                pass
    turn += 1
    if turn == 1:
        print("ready", flush=True)
    time.sleep(0.02)
"""


class ExitStub:
    """An exit that gives leases and moves no packet."""

    def __init__(self, last: int = 2) -> None:
        self.lease = messages.Lease(
            f"10.66.0.{last}/32", f"fd66::{last}/128", ["10.66.0.1"], 1500, 60.0
        )
        self.refusal: str | None = None
        self.clients: list[Incoming] = []
        self.mute = False  # says nothing any more
        self.over = asyncio.Event()

    async def serve(self, path: Path) -> None:
        async with connect_node(path, "exit") as node, asyncio.TaskGroup() as tasks:
            async for incoming in await node.listen(messages.PORT):
                tasks.create_task(self._serve(incoming))

    async def _serve(self, incoming: Incoming) -> None:
        messages.read_request(incoming.greeting)
        if self.refusal is not None:
            why = messages.encode(messages.Refusal(self.refusal))
            await incoming.refuse(messages.Why.NOT_ALLOWED, why)
            return
        stream = await incoming.accept(messages.encode(self.lease))
        self.clients.append(incoming)
        with contextlib.suppress(NodeError):  # the client is gone
            await self._talk(stream)

    async def _talk(self, stream: Stream) -> None:
        async with stream:
            while not self.over.is_set():
                if not self.mute:
                    await stream.write(
                        messages.frame(messages.Status(1, 0.25, blocked={"port": 3}))
                    )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(messages.EVERY / 5):
                        await self.over.wait()


@contextlib.asynccontextmanager
async def exits(*pairs: tuple[ExitStub, Path]) -> AsyncIterator[None]:
    """Run these at the nodes behind these sockets."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(stub.serve(path)) for stub, path in pairs]
        yield
        for task in running:
            task.cancel()


@dataclass
class Veiled:
    """The machine; its programs are ended by what ends them in a test."""

    mesh: SpreadMesh
    folder: Path
    captures: list[tuple[subprocess.Popen, Path]] = field(default_factory=list)
    noise: subprocess.Popen | None = None

    @property
    def space(self) -> str:
        return self.mesh.spaces.of("c")

    @property
    def resolv(self) -> Path:
        """What is mounted as the machine's /etc/resolv.conf."""
        return Path("/etc/netns", self.space, "resolv.conf")

    @property
    def home(self) -> dict[str, str]:
        return {**os.environ, **self.mesh._environment("vpn")}

    def run(self, *words: str, code: int | None = 0) -> str:
        """A command on the machine."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.space, *words], capture_output=True, text=True,
            check=False, env=self.home,
        )  # fmt: skip
        assert code is None or done.returncode == code, (words, done)
        return done.stdout

    def python(self, *words: str, code: int | None = 0) -> str:
        return self.run(sys.executable, "-P", *words, code=code)

    # The client ---------------------------------------------------------------------------------

    def start_client(self, *arguments: str, name: str = "vpn") -> subprocess.Popen:
        command = ["-m", "apps.vpn.client", "--node", "c", *arguments]
        self.mesh.start_beside("c", name, command, "vpn")
        return self.mesh.processes[name]

    def mend(self, verb: str, code: int | None = 0) -> dict:
        return json.loads(self.python("-m", "apps.vpn.mend", verb, code=code))

    async def told(self) -> dict:
        """What the client says of itself."""
        async with self.mesh.bus() as bus:
            body = await bus.request("vpn.status", to=self.mesh.key("vpn"), timeout=5)
            return api.unpack(body, dict)

    async def until(self, state: str, exit_: str | None = None) -> dict:
        told: object = None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception):
                told = await self.told()
                if told["state"] == state and exit_ in {None, told["exit"]}:
                    return told
            await asyncio.sleep(0.05)
        raise AssertionError(f"not {state}: {told}\n{self.mesh.log('vpn')}\n{self.mesh.log('c')}")

    def state(self) -> dict[str, list[str]]:
        """What a VPN may change on this machine, as lines."""
        texts = {
            "rules": self.run("ip", "rule") + self.run("ip", "-6", "rule"),
            "routes": self.run("ip", "route", "show", "table", "all")
            + self.run("ip", "-6", "route", "show", "table", "all"),
            "links": self.run("ip", "-o", "link").replace("\\", ""),
            "nft": self.run("nft", "list", "ruleset"),
            "resolv": self.run("cat", "/etc/resolv.conf"),
            "resolv file": self.run("stat", "-c", "%a %u %g %y", "/etc/resolv.conf"),
            "filter": self.run(
                "sh",
                "-c",
                "cat /proc/sys/net/ipv4/conf/all/rp_filter"
                " /proc/sys/net/ipv4/conf/all/src_valid_mark",
            ),
            "home": ",".join(sorted(path.name for path in (self.mesh.folder / "state").glob("*"))),
        }
        return {name: sorted(text.splitlines()) for name, text in texts.items()}

    def settle(self) -> None:
        """Wait until the kernel is done with addresses of its own (RFC 4862, 5.4)."""
        deadline = time.monotonic() + PATIENCE
        while self.run("ip", "-6", "addr", "show", "tentative"):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop_client(self) -> None:
        """End the client and put everything back."""
        client = self.mesh.processes.pop("vpn", None)
        if client is not None:
            client.terminate()
            client.wait(PATIENCE)
        self.mend("off")

    # What leaves --------------------------------------------------------------------------------

    def start_noise(self, *more: str) -> None:
        targets = (*INTERNET, ROUTER4, ROUTER6, self.mesh.spaces.address("e"), *more)
        self.noise = subprocess.Popen(
            ["ip", "netns", "exec", self.space, sys.executable, "-P", "-c", NOISE, *targets],
            stdout=subprocess.PIPE,
        )
        assert self.noise.stdout is not None
        assert self.noise.stdout.readline() == b"ready\n"

    def stop_noise(self) -> None:
        if self.noise is not None:
            self.noise.kill()
            self.noise.communicate()
            self.noise = None

    def outside(self, *words: str) -> str:
        """What a command at the router of the machine prints, however it ends."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.mesh.spaces.of("e"), *words], capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        return done.stdout

    def start_capture(self) -> None:
        """At the far ends of what leaves the machine."""
        spaces = self.mesh.spaces
        places = ((["ip", "netns", "exec", spaces.of("e")], "toc"), ([], spaces.of("c")))
        for number, (before, device) in enumerate(places):
            file = self.folder / f"{time.monotonic_ns()}-{number}.pcap"
            command = [
                "tcpdump",
                "-n",
                "-U",
                "-s",
                "128",
                "-Q",
                "in",
                "-i",
                device,
                "-w",
                str(file),
            ]
            process = subprocess.Popen(
                [*before, *command, "-Z", "root", "-B", "16384"], stderr=subprocess.PIPE
            )
            assert process.stderr is not None
            line = process.stderr.readline()
            assert b"listening on" in line, line
            self.captures.append((process, file))

    def stop_capture(self) -> list[Seen]:
        """What left since."""
        found: list[Seen] = []
        for process, file in self.captures:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
            found += captured(file)
        self.captures.clear()
        return found

    def leaks(self, seen: Sequence[Seen]) -> list[Seen]:
        """What is neither of the links nor of the bus nor of finding the next router."""
        spaces = self.mesh.spaces
        bus = urlsplit(self.mesh.address.endpoint)
        links = {spaces.address(name) for name in spaces._numbers}

        def rightful(packet: Seen) -> bool:
            if packet.proto == 58:
                return packet.kind in {133, 135, 136}  # neighbour discovery
            if packet.proto != 6 or packet.sport in NOISE_PORTS:
                return False
            return packet.target in links or (
                packet.target == bus.hostname and packet.dport == bus.port
            )

        return [packet for packet in seen if not rightful(packet)]

    def close(self) -> None:
        self.stop_noise()
        for process, _ in self.captures:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def veiled(links: Sequence[str] = ("e",), *, dials: bool = True) -> Iterator[Veiled]:
    """The machine `c`, linked to these nodes, which it dials or which dial it; the VPN is off."""
    nodes: dict[str, list[str]] = {"c": []} | {name: [] if dials else ["c"] for name in links}
    if dials:
        nodes["c"] = list(links)
    spaces = Namespaces(nodes)
    etc = Path("/etc/netns", spaces.of("c"))
    try:
        for name in links:
            spaces.join("c", name)
        _address(spaces)
        etc.mkdir(parents=True)
        (etc / "resolv.conf").write_text(RESOLV)
        with tempfile.TemporaryDirectory(prefix="vpn-") as folder:
            mesh = SpreadMesh(Path(folder), spaces)
            machine = Veiled(mesh, Path(folder))
            for name in ("vpn", "exit"):
                mesh._key(name, "app")
            try:
                mesh.start_broker([*nodes])
                mesh.start_manager()
                for name in sorted(nodes, key=lambda name: len(nodes[name])):
                    mesh.start_node(name, *nodes[name])
                asyncio.run(mesh.linked(*(("c", name) for name in links)))
                machine.settle()
                yield machine
            finally:
                machine.close()
                mesh.stop()
    finally:
        spaces.close()
        shutil.rmtree(etc, ignore_errors=True)


def _address(spaces: Namespaces) -> None:
    """`e` is the router of `c`, and the internet."""
    near, far = spaces.of("c"), spaces.of("e")
    for space, device, four, six in ((near, "toe", HOST4, HOST6), (far, "toc", ROUTER4, ROUTER6)):
        ip("-n", space, "addr", "add", f"{four}/24", "dev", device)
        ip("-n", space, "addr", "add", f"{six}/64", "dev", device, "nodad")
    for address in INTERNET:
        ip("-n", far, "addr", "add", address, "dev", "lo")
    ip("-n", near, "route", "add", "default", "via", ROUTER4)
    ip("-n", near, "-6", "route", "add", "default", "via", ROUTER6)


__all__ = ["ExitStub", "Seen", "Veiled", "exits", "socket", "veiled"]
