"""What can go wrong for who uses the launcher. The message is what the user reads: thing, place, way out."""

from __future__ import annotations


class ViscriptError(Exception):
    """Base of every error shown to a user; `exit_code` is the command's, `name` is for programs."""

    exit_code = 1
    name = "failed"


class Failed(ViscriptError):
    """A target did not reach the wanted state."""


class BadUsage(ViscriptError):
    """The command line cannot be meant."""

    exit_code = 2
    name = "usage"


class NotRunning(ViscriptError):
    """`status`: it is not running."""

    exit_code = 3
    name = "not_running"


class Denied(ViscriptError):
    """A key is not allowed, or a key file or folder cannot be used."""

    exit_code = 4
    name = "denied"


class NotFound(ViscriptError):
    """No such app or id."""

    exit_code = 5
    name = "not_found"


class NoDaemon(ViscriptError):
    """The daemon or its broker cannot be reached."""

    exit_code = 6
    name = "unreachable"


class Unknown(ViscriptError):
    """No answer in time: what was asked for may have happened or not. `job` tells later, if there is one."""

    def __init__(self, text: str = "", *, job: int | None = None, host: str = "") -> None:
        super().__init__(text)
        self.job = job
        self.host = host  # whose job it is; empty: our own

    exit_code = 7
    name = "timeout"


class BadConfig(ViscriptError):
    """The configuration is wrong; the message starts with file:line:column."""

    exit_code = 8
    name = "config"


class Conflict(ViscriptError):
    """Something else holds what is needed: another daemon this home, another program the port."""

    exit_code = 9
    name = "conflict"


class Partial(ViscriptError):
    """Some hosts cannot be reached; the rest is done."""

    exit_code = 10
    name = "partial"


BY_NAME: dict[str, type[ViscriptError]] = {
    kind.name: kind
    for kind in (
        Failed, BadUsage, NotRunning, Denied, NotFound, NoDaemon, Unknown, BadConfig, Conflict, Partial,
    )
}  # fmt: skip
