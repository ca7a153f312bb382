"""`viscript host …`, `join` and `leave`: which hosts belong to a cluster. The first host's daemon answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viscript.errors import Conflict

if TYPE_CHECKING:
    from viscript.cluster.registrar import Registrar
    from viscript.launcher import Launcher


def registrar(launcher: Launcher) -> Registrar:
    """Of this host; `Conflict` when it has joined another's cluster."""
    if launcher.registrar is None:
        raise Conflict(
            "this host has joined a cluster; that is decided on its first host: viscript host ls"
        )
    return launcher.registrar
