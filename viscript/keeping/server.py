"""The process that keepers are forked from: they share what it has imported, so one costs little memory.

Run as `python -I -S server.py` by the daemon, with a socket as its standard input; it ends when that is
closed, its keepers do not. Each message passes one connection: a keeper reads there what to run, as one
JSON document (`folder`, `spec` or `adopt`, `env`), and answers with one. A message without one says how many
more come soon: so many wait at the socket themselves, each for the next, and end with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import signal
import socket
import sys
from typing import Any, NoReturn

DIGITS = 4  # of a number of keepers
LONGEST = 16 << 20  # bytes of one request; Linux allows a program less than that


def serve(control: socket.socket) -> None:
    # SIGCHLD: ended keepers are reaped at once, also where process 1 reaps nothing.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # what is there now is never looked at again, so it stays shared
    gc.disable()
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, DIGITS, 1)
        if not data:
            return
        for _ in range(1 if descriptors else int(data)):
            if os.fork() == 0:
                _be_keeper(control, descriptors)
        for each in descriptors:
            os.close(each)


def _be_keeper(control: socket.socket, descriptors: list[int]) -> NoReturn:
    """In a session of its own; without a descriptor it waits for one like what it was forked from."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        gc.enable()
        os.setsid()
        while not descriptors:
            data, descriptors, _, _ = socket.recv_fds(control, DIGITS, 1)
            if not data:
                os._exit(0)
        control.close()
    except OSError:
        os._exit(1)
    _keep(socket.socket(fileno=descriptors[0]))


def _keep(connection: socket.socket) -> NoReturn:
    """Be a keeper, to the end."""
    folder = ""
    try:
        connection.set_inheritable(False)  # which `recv_fds` leaves it
        request = _read(connection)
        folder = request["folder"]
        _work(connection, request)
    except BaseException as problem:  # noqa: BLE001 - whatever it is, it is told
        _write_down(folder)
        _answer(connection, {"problem": f"{type(problem).__name__}: {problem}"})
    finally:
        os._exit(0)


def _write_down(folder: str) -> None:
    """What went wrong, where who looks for it finds it."""
    import traceback

    with contextlib.suppress(OSError), open(f"{folder}/keeper.log", "a") as file:  # noqa: PTH123
        traceback.print_exc(file=file)


def _work(connection: socket.socket, request: dict[str, Any]) -> None:
    lock = _open_lock(request["folder"])
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _answer(connection, {"locked": True})
        return
    try:
        _keep_in(request["folder"], request, connection)
    finally:
        os.close(lock)  # before a problem is told: who hears of it looks whether anything lives


def _open_lock(folder: str) -> int:
    """The file that is locked as long as a keeper lives; those of before had one that was nothing else."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(f"{folder}/lock", flags)
    except FileNotFoundError:
        return os.open(f"{folder}/spec.json", flags | os.O_CREAT, 0o600)


def _keep_in(folder: str, request: dict[str, Any], connection: socket.socket) -> None:
    from viscript.keeping import kernel
    from viscript.keeping.keeper import Keeper

    os.dup2(0, 2)  # nowhere: the daemon's log is not to be held open for as long as we live
    spec = _spec(folder, request)
    kernel.become_subreaper(f"keeper {spec['id']}")
    keeper = Keeper(folder, spec)
    runs = keeper.start(request.pop("env"))
    _answer(connection, {"state": keeper.state})
    connection.close()
    del request
    if runs:
        keeper.run()


def _read(connection: socket.socket) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\n") and len(data) < LONGEST:
        part = connection.recv(1 << 20)
        if not part:
            raise EOFError("the daemon was killed while it asked")
        data += part
    found = json.loads(data)
    assert isinstance(found, dict)  # noqa: S101 - from our own daemon
    return found


def _spec(folder: str, request: dict[str, Any]) -> dict[str, Any]:
    """What is to run; to take over, what the keeper before was told, if that can be read."""
    from viscript.keeping import files

    path = f"{folder}/spec.json"
    spec: dict[str, Any] = request["spec"]
    if spec["adopt"] is not None:
        with contextlib.suppress(OSError, ValueError, TypeError), open(path) as file:  # noqa: PTH123
            before = json.load(file)
            if before["generation"] == spec["generation"] and "rule" in before:
                return {**before, "adopt": spec["adopt"]}
    spec["mark"] = os.urandom(8).hex()
    files.write(path, json.dumps(spec).encode())
    return spec


def _answer(connection: socket.socket, answer: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the daemon was killed meanwhile
        connection.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    sys.path.append(sys.argv[1])  # at the end: nothing there hides the standard library
    from viscript.keeping import keeper as _keeper  # noqa: F401 - imported once, for all
    from viscript.keeping import kernel as _kernel

    _kernel.warm_up()
    _control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    serve(_control)
