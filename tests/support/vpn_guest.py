"""A client of a VPN's exit without what a real one has around it: a lease, a TUN device, all routes into it.

    python -m tests.support.vpn_guest SOCKET EXIT GREETING MODE

Prints a JSON line for each thing it hears: `{"lease": …}` or `{"refused": code, "reason": …}`, then what the
exit says. Ends when its standard input does. MODE `mute` says nothing any more once it has its lease.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys

import msgspec

from apps.vpn import messages
from apps.vpn.messages import Alive, AtClient, Lease
from apps.vpn.tun import open_tun
from nodes.client import Node, NodeError, Stream, StreamRefused, connect_node

DEVICE = "vt0"


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


def configure(lease: Lease) -> None:
    for words in (
        f"link set {DEVICE} mtu {lease.mtu} txqueuelen 16 up",
        f"addr add {lease.v4} dev {DEVICE}",
        f"-6 addr add {lease.v6} dev {DEVICE} nodad",
        f"route add default dev {DEVICE}",
        f"-6 route add default dev {DEVICE}",
    ):
        subprocess.run(["ip", *words.split()], check=True)


async def hear(stream: Stream) -> None:
    reader = AtClient()
    with contextlib.suppress(NodeError):
        while data := await stream.read():
            for message in reader.feed(data):
                say(msgspec.to_builtins(message))
    say({"type": "end"})


async def use(node: Node, exit_: str, greeting: bytes, mode: str) -> None:
    try:
        stream = await node.open_stream(exit_, messages.PORT, greeting)
    except StreamRefused as error:
        say({"refused": error.code, "reason": messages.read_refusal(error.reply).reason})
        return
    except NodeError as error:
        say({"failed": str(error)})
        return
    lease = messages.read_lease(stream.reply)
    descriptor = open_tun(DEVICE)
    configure(lease)
    tunnel = await node.tunnel(descriptor, DEVICE, mtu=lease.mtu)
    os.close(descriptor)
    await tunnel.set_peer(exit_, ["0.0.0.0/0", "::/0"])
    say({"lease": msgspec.to_builtins(lease)})
    async with asyncio.TaskGroup() as tasks:
        hearing = tasks.create_task(hear(stream))
        ending = tasks.create_task(asyncio.to_thread(sys.stdin.read))
        while not ending.done():
            if mode != "mute":
                with contextlib.suppress(NodeError):
                    await stream.write(messages.frame(Alive()))
            await asyncio.wait({ending}, timeout=messages.EVERY / 5)
        hearing.cancel()
    await stream.aclose()


async def main() -> None:
    path, exit_, greeting, mode = sys.argv[1:]
    async with connect_node(path, "guest") as node:
        await use(node, exit_, bytes.fromhex(greeting), mode)


if __name__ == "__main__":
    asyncio.run(main())
