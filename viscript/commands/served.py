"""What the daemon answers over the bus: the explicit table of subjects, and the role that each needs.

What is not in it is not answered. Who only has a role on what a selector matches is let through where
`scoped` is set: that handler then asks `caller.may` or `caller.require` for each launch. Elsewhere the role
must be held on everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from viscript.commands import (
    apply,
    attach,
    audit,
    config,
    daemon,
    down,
    events,
    find,
    history,
    job,
    kill,
    ping,
    plan,
    printed,
    reload,
    restart,
    role,
    ru,
    run,
    scale,
    sd,
    send,
    start,
    status,
    top,
    wait,
    waiting,
    why,
)
from viscript.commands import (
    list as list_,
)
from viscript.commands.hosts import decide as hosts_decide
from viscript.commands.hosts import invite as hosts_invite
from viscript.commands.hosts import ls as hosts_ls
from viscript.roles import Role


@dataclass(frozen=True)
class Served:
    """`module` has SUBJECT, Request and `handle(launcher, request, caller)`."""

    module: ModuleType
    role: Role
    scoped: bool = False
    audited: bool = True  # each time; what only looks, again and again: once a minute for each key


TABLE: tuple[Served, ...] = (
    Served(start, Role.OPERATE, scoped=True),
    Served(sd, Role.OPERATE, scoped=True),
    Served(restart, Role.OPERATE, scoped=True),
    Served(reload, Role.OPERATE, scoped=True),
    Served(kill, Role.OPERATE, scoped=True),
    Served(scale, Role.OPERATE, scoped=True),
    Served(job, Role.VIEW, scoped=True, audited=False),
    Served(down, Role.ADMIN),
    Served(daemon, Role.ADMIN),
    Served(attach, Role.OPERATE, scoped=True),
    Served(send, Role.OPERATE, scoped=True),
    Served(plan, Role.CONFIGURE, audited=False),
    Served(apply, Role.CONFIGURE),
    Served(role, Role.ADMIN),
    Served(audit, Role.ADMIN, audited=False),
    Served(config, Role.CONFIGURE, audited=False),
    Served(run, Role.ADMIN),
    Served(waiting, Role.VIEW, scoped=True, audited=False),
    Served(hosts_invite, Role.ADMIN),
    Served(hosts_decide, Role.ADMIN),
    Served(hosts_ls, Role.VIEW, audited=False),

    Served(list_, Role.VIEW, scoped=True),
    Served(status, Role.VIEW, scoped=True),
    Served(ru, Role.VIEW, scoped=True, audited=False),
    Served(ping, Role.VIEW, scoped=True, audited=False),
    Served(top, Role.VIEW, scoped=True, audited=False),
    Served(events, Role.VIEW, audited=False),
    Served(history, Role.VIEW, scoped=True),
    Served(why, Role.VIEW, scoped=True),
    Served(find, Role.VIEW, scoped=True, audited=False),
    Served(wait, Role.VIEW, scoped=True, audited=False),
    Served(printed, Role.VIEW, scoped=True, audited=False),
)  # fmt: skip
