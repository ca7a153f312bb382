"""Ends the VPN, or looks what is left of it: for who stands before a machine on which nothing else runs.

    python -P -m apps.vpn.mend off|look|repair

of the home $VISCRIPT_HOME. `viscript vpn off` and `viscript vpn doctor` run it; it needs neither bus nor
daemon. Prints one JSON document. Exit codes: 0 done, 1 something is wrong, 2 wrong arguments, 77 lacks
CAP_NET_ADMIN.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Final, Literal

import msgspec

from apps.vpn import changes, killswitch, nft, resolvconf, routing
from apps.vpn.changes import Changes
from apps.vpn.killswitch import FAMILY, TABLE, Policy
from apps.vpn.machine import Incapable, Machine, MachineError, check_capable

NOT_CAPABLE: Final = 77


class Part(msgspec.Struct, frozen=True):
    """One thing that was looked at; it is well where nothing is to be done."""

    part: str
    text: str
    todo: str = ""

    @property
    def well(self) -> bool:
        return not self.todo


class Report(msgspec.Struct, frozen=True):
    """What `look` finds: whether the VPN is on, since when, what the kill switch has blocked."""

    on: bool
    parts: list[Part]
    exits: list[str] = []
    since: float = 0.0  # Unix s
    only: list[str] = []
    exclude: list[str] = []
    lan: bool = False
    own_dns: bool = False
    blocked: dict[str, tuple[int, int]] = {}  # packets and bytes, by what
    problem: str = ""


def look(machine: Machine) -> Report:
    """Compare what is with what should be; raises one of MachineError."""
    held = changes.load(machine.file)
    owner = nft.comment(FAMILY, TABLE)
    mine = owner == killswitch.told(str(machine.home))
    if held is None:
        return Report(on=False, parts=_off(owner, mine=mine))
    return Report(
        on=True, parts=_on(held, held.policy(str(machine.home)), owner, mine=mine), exits=held.exits,
        since=held.since, only=held.only, exclude=held.exclude, lan=held.lan, own_dns=held.own_dns,
        blocked=dict(nft.counters(FAMILY, TABLE)),
    )  # fmt: skip


def _off(owner: str | None, *, mine: bool) -> list[Part]:
    """There should be nothing."""
    if owner is not None and not mine:
        return [Part("kill switch", f"that of the home {owner} is on")]
    off, rules, ours = "viscript vpn off", routing.left(), resolvconf.is_ours()
    parts = [
        Part("kill switch", "on, though the VPN is off", off)
        if mine
        else Part("kill switch", "off")
    ]
    parts.append(
        Part("routing rules", f"{rules} left", off) if rules else Part("routing rules", "none")
    )
    if ours:
        text = f"{resolvconf.FILE} is ours, and what it was is not known"
        todo = f"write {resolvconf.FILE} anew, or have your network manager do it"
        return [*parts, Part("resolvers", text, todo)]
    return [*parts, Part("resolvers", "the system's")]


def _on(held: Changes, policy: Policy, owner: str | None, *, mine: bool) -> list[Part]:
    repair = "viscript vpn doctor --repair"
    wrong = f"that of the home {owner} is on" if owner else "missing: packets may leave"
    missing = routing.missing(policy)
    parts = [
        Part("kill switch", "on") if mine else Part("kill switch", wrong, repair),
        Part("routing rules", f"missing: {', '.join(missing)}", repair)
        if missing
        else Part("routing rules", "there"),
    ]
    if held.resolv is not None and not held.own_dns:
        changed = f"{resolvconf.FILE} was changed by somebody else"
        ours = resolvconf.is_ours()
        parts.append(
            Part("resolvers", "in the tunnel") if ours else Part("resolvers", changed, repair)
        )
    return parts


def repair(machine: Machine) -> Report:
    """Make it what it should be: all of it there, or nothing; raises one of MachineError."""
    held = changes.load(machine.file)
    if held is None:
        machine.unblock()
        return look(machine)
    machine.mend(held.policy(str(machine.home)))
    return look(machine)


def off(machine: Machine) -> Report:
    """Put everything back; raises one of MachineError."""
    told = machine.unblock()
    report = look(machine)
    return msgspec.structs.replace(report, problem="; ".join(told))


def main(verb: Literal["off", "look", "repair"], home: Path) -> int:
    try:
        check_capable()
        report = {"off": off, "look": look, "repair": repair}[verb](Machine(home))
    except Incapable as error:
        _print(Report(on=False, parts=[], problem=str(error)))
        return NOT_CAPABLE
    except MachineError as error:
        _print(Report(on=changes.place(home).exists(), parts=[], problem=str(error)))
        return 1
    _print(report)
    return 0 if all(part.well for part in report.parts) else 1


def _print(report: Report) -> None:
    print(msgspec.json.encode(report).decode())  # noqa: T201 - the program's own output


def start() -> None:
    parser = argparse.ArgumentParser(prog="vpn-mend", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("verb", choices=("off", "look", "repair"))
    found = parser.parse_args()
    sys.exit(main(found.verb, Path(os.environ.get("VISCRIPT_HOME", "."))))


if __name__ == "__main__":
    start()
