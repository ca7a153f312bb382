"""All that the VPN client changes on the machine, in the order in which it is safe. Linux.

On: what is to be put back is written down, then the kill switch, then rules and routes. With a lease:
addresses, routes, resolver. Off: in the opposite order, the kill switch last. Whoever holds the file of
changes can end or mend it: there is nothing that only a running process knows. Blocking; call it from a
thread.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from apps.vpn import changes, killswitch, nft, resolvconf, routing
from apps.vpn.changes import Changes
from apps.vpn.killswitch import FAMILY, TABLE, Now, Policy
from apps.vpn.severing import sever

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apps.vpn.killswitch import Address

log = logging.getLogger("vpn")

_CAP_NET_ADMIN: Final = 12  # linux/capability.h
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred of unix(7)
_LISTENING: Final = "0A"  # linux/tcp_states.h

MachineError = (nft.NftError, routing.RoutingError, resolvconf.ResolvError, changes.ChangesError)


class Incapable(Exception):
    """What a VPN needs is not there, in this process or on this machine; the text says what to do."""


class Taken(Exception):
    """The VPN of another home is on; the text says which."""


@dataclass
class Machine:
    """What a home changes on its machine."""

    home: Path

    @property
    def file(self) -> Path:
        return changes.place(self.home)

    @property
    def is_on(self) -> bool:
        """Whether something is changed, or about to be."""
        return self.file.exists()

    # On -----------------------------------------------------------------------------------------

    def block(self, policy: Policy, exits: Sequence[str], since: float) -> None:
        """Let nothing out but by a tunnel that is not there yet. What is on already is taken over.

        Raises Incapable, Taken, or one of MachineError; then the kill switch is as it was before, or on.
        """
        check_capable()
        owner = nft.comment(FAMILY, TABLE)
        if owner is not None and owner != killswitch.told(str(self.home)):
            raise Taken(
                f"the VPN of the home {owner} is on already; end it: viscript vpn off --home {owner}"
            )
        held = changes.load(self.file)
        wanted = changes.of_policy(policy, exits, since if held is None else held.since)
        if held is not None:
            wanted = msgspec.structs.replace(wanted, resolv=held.resolv, valid_mark=held.valid_mark)
        changes.save(self.file, wanted)
        nft.apply(killswitch.ruleset(policy, Now(ports=listening(policy.uid))))
        routing.block(policy)
        self._let_return(wanted)

    def lease(
        self, policy: Policy, addresses: Sequence[Address], resolvers: Sequence[Address], mtu: int
    ) -> None:
        """Lead everything into the tunnel; raises one of MachineError.

        Connections from the address of another exit end, as they could never go on.
        """
        gone = set(routing.addresses(policy.tun)).difference(addresses)
        nft.apply(killswitch.refreshed(Now(tuple(addresses), listening(policy.uid))))
        routing.lead(policy, addresses, resolvers, mtu)
        if problem := sever(gone):
            log.info("%s", problem)
        if not policy.own_dns:
            self.resolve(policy, resolvers)

    def resolve(self, policy: Policy, resolvers: Sequence[Address]) -> None:
        """Have names asked for in the tunnel, also if somebody has changed that meanwhile."""
        if resolvconf.is_written(resolvers):
            return
        held = changes.load(self.file)
        if held is None:
            return
        before = held.resolv
        if before is None or not resolvconf.is_ours():
            before = resolvconf.read()
            changes.save(self.file, msgspec.structs.replace(held, resolv=before))
        resolvconf.write(resolvers, before)
        resolvconf.tell_resolved(policy.tun, resolvers)

    def refresh(self, policy: Policy, addresses: Sequence[Address]) -> None:
        """Follow the node, which may listen elsewhere by now; raises NftError."""
        nft.apply(killswitch.refreshed(Now(tuple(addresses), listening(policy.uid))))

    def mend(self, policy: Policy) -> bool:
        """What others have taken away is there again; whether something was missing. Raises MachineError."""
        torn = False
        if nft.comment(FAMILY, TABLE) != killswitch.told(str(self.home)):
            now = Now(tuple(routing.addresses(policy.tun)), listening(policy.uid))
            nft.apply(killswitch.ruleset(policy, now))
            torn = True
        if routing.missing(policy):
            routing.block(policy, keep=True)
            torn = True
        return torn

    # Off ----------------------------------------------------------------------------------------

    def unblock(self) -> list[str]:
        """Put everything back as it was; what could not be, for people. Raises one of MachineError."""
        held = changes.load(self.file)
        told: list[str] = []
        if held is not None:
            told = self._put_back(held)
            gone = routing.addresses(held.tun)
            routing.remove_device(held.tun)
            sever(gone)
        owner = nft.comment(FAMILY, TABLE)
        if held is not None or owner == killswitch.told(str(self.home)):
            routing.unblock()
            nft.delete(FAMILY, TABLE)
        changes.remove(self.file)
        return told

    def _put_back(self, held: Changes) -> list[str]:
        told = []
        if held.resolv is not None and not resolvconf.put_back(held.resolv):
            told.append(f"{resolvconf.FILE} was changed by somebody else since, and stays as it is")
        if held.valid_mark is not None:
            routing.mind_marks(held.valid_mark)
        return told

    def _let_return(self, held: Changes) -> None:
        """Have the reverse path filter look at marks, where there is one."""
        before = routing.filtered()
        if before is not None:
            if held.valid_mark is None:
                changes.save(self.file, msgspec.structs.replace(held, valid_mark=before))
            routing.mind_marks("1")


def check_capable() -> None:
    """Raises Incapable when this process cannot change networks, or the machine lacks a program."""
    if not _held() >> _CAP_NET_ADMIN & 1:
        raise Incapable(
            "a VPN needs CAP_NET_ADMIN (addresses, routes, nftables): run viscript as root"
        )
    try:
        nft.program()
    except nft.NftError as error:
        raise Incapable(str(error)) from None


def listening(uid: int) -> frozenset[int]:
    """The TCP ports on which sockets of this user listen."""
    found = set()
    for file in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            lines = file.read_text().splitlines()[1:]
        except OSError:  # a kernel without IPv6
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTENING and int(fields[7]) == uid:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return frozenset(found)


def links_of(socket_path: Path) -> frozenset[int]:
    """Whose sockets the node behind its local socket makes, beside its own: the users of its threads."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        try:
            asking.connect(str(socket_path))
        except OSError as error:
            raise Incapable(f"{socket_path}: {error.strerror}") from None
        credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, _, _ = _CREDENTIALS.unpack(credentials)
    found = set()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            found.add(int(_line(status, "Uid:").split()[4]))  # real, effective, saved, file system
    return frozenset(found)


def _held() -> int:
    """The effective capabilities of this process, as bits."""
    return int(_line(Path("/proc/self/status"), "CapEff:").split()[1], 16)


def _line(file: Path, name: str) -> str:
    return next(line for line in file.read_text().splitlines() if line.startswith(name))
