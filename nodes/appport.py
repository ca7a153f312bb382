"""The node's local port: the unix socket where apps connect. Only this user's processes may."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
import struct
from typing import TYPE_CHECKING, Final, Protocol

from nodes.app import App
from nodes.errors import CannotListen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nodes.engine import Engine
    from nodes.lane import Lane

log = logging.getLogger(__name__)

MAX_APPS: Final = 256
_CREDENTIALS: Final = struct.Struct("iII")  # pid, uid, gid


class Routes(Protocol):
    """Finds the lane to a node, by its name or key."""

    def known(self, target: str) -> Lane | None: ...

    async def route(self, target: str) -> Lane:
        """Raises Unreachable."""
        ...


class AppPort:
    """Serves apps on `sock`, which listens at `path`; `vouch` signs as the node."""

    def __init__(
        self,
        engine: Engine,
        sock: socket.socket,
        path: Path,
        name: str,
        routes: Routes,
        tasks: asyncio.TaskGroup,
        vouch: Callable[[int, bytes], bytes],
    ) -> None:
        self.engine = engine
        self.name = name
        self._routes = routes
        self.tasks = tasks
        self.vouch = vouch
        self.loop = asyncio.get_running_loop()
        self._path = path
        self._apps: set[App] = set()
        self._socket = sock
        self.loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        self.loop.remove_reader(self._socket)
        self._socket.close()
        for app in list(self._apps):
            app.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    async def route(self, target: str) -> Lane:
        return await self._routes.route(target)

    def known(self, target: str) -> Lane | None:
        return self._routes.known(target)

    def forget(self, app: App) -> None:
        self._apps.discard(app)

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except OSError:  # the client is gone again, or we have no descriptors left
            return
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _pid, uid, _gid = _CREDENTIALS.unpack(raw)
        if uid != os.getuid() or len(self._apps) >= MAX_APPS:
            log.warning("refused a local connection of user %s", uid)
            sock.close()
            return
        self._apps.add(App(self, sock))


def listen(path: Path) -> socket.socket:
    """A listening socket at `path` that only this user may use; raises CannotListen."""
    try:
        if stat.S_ISSOCK(path.lstat().st_mode):
            _remove_if_dead(path)
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        raise CannotListen(
            f"cannot make the local socket {path}: {error.strerror or error}"
        ) from None
    finally:
        os.umask(mask)
    sock.listen(128)
    sock.settimeout(0)
    return sock


def _remove_if_dead(path: Path) -> None:
    """Remove what a killed node left behind; raises CannotListen when somebody answers there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:
            return
    raise CannotListen(f"a node already answers at {path}; give this one another --name")
