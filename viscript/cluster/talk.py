"""What hosts say to each other: subjects and bodies. The receiver believes nothing that is in them."""

from __future__ import annotations

from msgspec import Struct

from bus.signals import Rules
from viscript.cluster.numbers import Block, holds
from viscript.cluster.registry import RoleName
from viscript.records import Status

HOST_ROLE = "host"  # on the bus, of a daemon that is not the first host's

# Requests of a host's daemon to the first host's. HELLO goes to whoever serves it, the rest to its key.
HELLO = "viscript.member.hello"  # Hello -> Welcome
REPORT = "viscript.member.report"  # Report -> Done
NUMBERS = "viscript.member.numbers"  # Done -> Block
ADMIT = "viscript.member.admit"  # App -> Done
DISMISS = "viscript.member.dismiss"  # App -> Done
END = "viscript.member.end"  # App -> Done
HOSTS = "viscript.member.hosts"  # Done -> Directory
CHANGED = "viscript.hosts"  # published by the first host when the directory has changed

MAX_REPORT = 500  # launches


class Hello(Struct, frozen=True):
    name: str  # as the machine calls itself
    people: str  # the key of its command line
    version: str = ""


class HostInfo(Struct, frozen=True, kw_only=True):
    """A host as everybody in the cluster may know it."""

    name: str
    key: str
    state: str = "accepted"  # or revoked
    people: list[str] = []  # keys of its command lines
    role: RoleName = "none"  # of these, on the other hosts
    seen: float = 0.0  # Unix seconds of its last word; the first host's is now
    ids: tuple[Block, ...] | None = None  # of its launches; None: any may be


class Directory(Struct, frozen=True):
    """All hosts, the first one first; every id up to `handed` is some host's."""

    hosts: list[HostInfo]
    handed: int = 0

    def may_have(self, host: HostInfo, number: int) -> bool:
        """Whether a launch with this id can be this host's; ids after `handed` are of blocks unheard of."""
        return host.ids is None or number > self.handed or holds(host.ids, number)

    @property
    def first(self) -> HostInfo:
        return self.hosts[0]

    @property
    def accepted(self) -> list[HostInfo]:
        return [host for host in self.hosts if host.state == "accepted"]


class Known(Struct, frozen=True):
    """What a daemon leaves on disk for the command line: who it is, and who the others are."""

    name: str
    directory: Directory


class Welcome(Struct, frozen=True):
    name: str  # what it is called in the cluster
    directory: Directory


class App(Struct, frozen=True):
    key: str
    slot: str = ""
    role: str = "app"


class Report(Struct, frozen=True):
    """What is live, at every change and every few seconds."""

    launches: list[Status]


# What shows the mesh and changes nothing in it.
LOOKING = (
    "mesh.nodes", "mesh.wishes", "mesh.why", "node.status", "node.peers", "node.routes", "node.sessions",
    "node.streams", "node.metrics", "node.ping", "node.trace", "tracker.find",
)  # fmt: skip


def people_rules(role: RoleName) -> Rules:
    """What the command line of another host may do on the bus: it reaches all daemons, its own as well.

    Each of them looks at `role` itself, and at what it is asked to be done to: so no role asks programs for
    anything past the daemons but how they are; to end, for instance. Who may see may look at the mesh, and
    measure it from `operate` on; which way traffic goes is said on the first host.
    """
    if role == "none":
        return Rules(request=["viscript.>"])
    load = [] if role == "view" else ["node.speed"]
    return Rules(
        request=["viscript.>", "signal.ping", "signal.usage", "vpn.status", *LOOKING, *load],
        subscribe=["viscript.events", "mesh.event.>"],
    )


NOT_FOR_PEOPLE = Rules(request=["viscript.member.>"])
