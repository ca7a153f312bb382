"""What the people of one host may do on another. Pure; the daemon that is asked decides."""

from __future__ import annotations

from viscript.cluster.registry import RoleName
from viscript.cluster.talk import Directory
from viscript.roles import Caller, Grant, Role


def caller(directory: Directory, own: str, grant: RoleName, key: str) -> Caller | None:
    """Who has `key` if it is the command line of another host that belongs; `own` is our daemon's key.

    It may do what its own invitation says, and no more than `grant`.
    """
    for host in directory.accepted:
        if key in host.people and host.key != own:
            name = f"{host.name}:cli"
            if "none" in {host.role, grant}:
                return Caller(key, name)
            role = min(Role.named(host.role), Role.named(grant))
            return Caller(key, name, (Grant(key, role, name=name),))
    return None
