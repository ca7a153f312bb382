"""What the VPN client and its tool tell: asked for here, and shown by `looking`."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from viscript.commands import find
from viscript.commands.vpn import APP
from viscript.errors import Denied, Failed, NotFound, ViscriptError
from viscript.home import PYTHON

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.home import Home
    from viscript.records import Status

STATUS: Final = "vpn.status"  # a request to the client's own key
UNKNOWN: Final = "unknown"  # state of the client where no daemon answers
_TOOL: Final = "apps.vpn.mend"
_TIMEOUT: Final = 60.0  # seconds
_NOT_CAPABLE: Final = 77


class Figures(Struct, frozen=True):
    """What went through the tunnel; bytes, packets, bytes/s of the last seconds, seconds."""

    bytes_in: int = 0
    bytes_out: int = 0
    packets_in: int = 0
    packets_out: int = 0
    rate_in: float = 0.0
    rate_out: float = 0.0
    round_trip: float | None = None
    dropped: dict[str, int] = {}
    offload: list[str] = []


class Told(Struct, frozen=True):
    """What the client says of itself; see apps.vpn.standing."""

    state: str = "not running"
    node: str = ""
    exit: str = ""
    since: float = 0.0
    trouble: str = ""
    addresses: list[str] = []
    resolvers: list[str] = []
    mtu: int = 0
    limits: dict[str, int] = {}
    load: float = 0.0
    clients: int = 0
    volume: int = 0
    blocked: dict[str, int] = {}
    figures: Figures = Figures()


class Part(Struct, frozen=True):
    """Something of the machine that was looked at; `todo` is empty where it is well."""

    part: str
    text: str
    todo: str = ""


class Report(Struct, frozen=True):
    """What the tool finds on this machine; see apps.vpn.mend."""

    on: bool = False
    parts: list[Part] = []
    exits: list[str] = []
    since: float = 0.0
    only: list[str] = []
    exclude: list[str] = []
    lan: bool = False
    own_dns: bool = False
    blocked: dict[str, tuple[int, int]] = {}
    problem: str = ""


def mend(home: Home, verb: str) -> Report:
    """Run the tool: `look`, `repair` or `off`. Needs no daemon and no bus. Raises Denied, Failed."""
    try:
        done = subprocess.run(
            [*PYTHON, "-P", "-m", _TOOL, verb], capture_output=True, text=True, check=False,
            timeout=_TIMEOUT, env={**os.environ, "VISCRIPT_HOME": str(home.root)},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failed(f"{_TOOL} {verb} did not end within {_TIMEOUT:g} s") from None
    try:
        report = msgspec.json.decode(done.stdout, type=Report)
    except msgspec.MsgspecError:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise Failed(f"{_TOOL} {verb}: {last[0]}") from None
    if report.problem and not report.parts:
        raise (Denied if done.returncode == _NOT_CAPABLE else Failed)(report.problem)
    return report


def running(client: Client) -> Status | None:
    """The launch of the client, if there is one."""
    try:
        found = client.ask(find.SUBJECT, find.Request([APP]), find.Reply).launches
    except NotFound:
        return None
    return found[0] if found else None


def ask(client: Client, launch: Status) -> Told:
    """What the client says; that it does not answer is an answer, too."""
    from bus.errors import BusError

    try:
        return client.ask_participant(launch.key, STATUS, {}, Told, 3.0)
    except (BusError, ViscriptError) as error:
        return Told(state="connecting", trouble=f"it does not answer yet: {error}")
