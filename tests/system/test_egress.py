"""The connections of nodes belong to a user of their own, dialled and taken ones, and nothing else does."""

import asyncio
import os
import socket
from collections import Counter
from pathlib import Path

from bus.egress import UID, Egress
from tests.support.mesh import running_mesh

ESTABLISHED, LISTENING = "01", "0A"


def owners(pid: int, state: str) -> Counter[int]:
    """How many TCP sockets of a process are in this state, by whose they are."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = str(descriptor.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return Counter(int(row[7]) for row in rows if row[3] == state and row[9] in inodes)


def test_a_socket_made_inside_is_its_user_s_and_one_made_afterwards_is_not() -> None:
    with Egress(UID), socket.create_server(("127.0.0.1", 0)) as inside:
        assert os.fstat(inside.fileno()).st_uid == UID
    with socket.socket() as outside:
        assert os.fstat(outside.fileno()).st_uid == os.geteuid()


def test_all_connections_of_nodes_belong_to_their_user() -> None:
    with running_mesh({"a": [], "b": ["a"]}) as mesh:
        asyncio.run(mesh.linked(("a", "b")))
        for name in ("a", "b"):
            pid = mesh.processes[name].pid
            # To the bus, the control connection and the data connections; ZeroMQ's door and that for data.
            assert owners(pid, ESTABLISHED) == {UID: 6}
            assert owners(pid, LISTENING) == {UID: 2}


def test_a_node_that_is_told_so_keeps_its_own_user() -> None:
    with running_mesh({"a": []}, spare=["b"]) as mesh:
        mesh.start_node("b", "a", options=("--egress-uid", "none"))
        asyncio.run(mesh.linked(("a", "b")))
        assert owners(mesh.processes["b"].pid, ESTABLISHED) == {os.geteuid(): 6}
