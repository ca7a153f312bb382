"""Between fork and exec: turns a child of the keeper into the program."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import signal
import termios
from collections.abc import Iterator
from typing import Any, NoReturn

LIMITS = {
    "nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC, "as": resource.RLIMIT_AS,
    "core": resource.RLIMIT_CORE, "fsize": resource.RLIMIT_FSIZE, "cpu": resource.RLIMIT_CPU,
    "stack": resource.RLIMIT_STACK, "data": resource.RLIMIT_DATA,
    "memlock": resource.RLIMIT_MEMLOCK,
}  # fmt: skip
SPARE = 100  # from here on descriptors that the program need not know of
IGNORED = (
    signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD,
)  # fmt: skip


class Identity:
    """Whom a program is to run as; looked up before the fork, so that a wrong name fails early."""

    def __init__(self, user: str, group: str) -> None:
        """`OSError` when there is no such user or group."""
        self.uid = self.gid = -1
        self.name = self.home = ""
        self.groups: list[int] = []
        if user:
            self._look_up(user)
        if group:
            self.gid = _group(group)
            self.groups = self.groups or [self.gid]

    def _look_up(self, user: str) -> None:
        import pwd

        try:
            found = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        except KeyError:
            raise OSError(2, f"user {user}: there is no such user") from None
        self.uid, self.gid = found.pw_uid, found.pw_gid
        self.name, self.home = found.pw_name, found.pw_dir
        self.groups = os.getgrouplist(found.pw_name, found.pw_gid)

    @property
    def is_another(self) -> bool:
        """Not ourselves: what is closed to others is closed to it."""
        return self.uid not in (-1, os.geteuid())

    @property
    def environment(self) -> dict[str, str]:
        if not self.name:
            return {}
        return {"USER": self.name, "LOGNAME": self.name, "HOME": self.home}


def _group(group: str) -> int:
    import grp

    try:
        return (grp.getgrgid(int(group)) if group.isdecimal() else grp.getgrnam(group)).gr_gid
    except KeyError:
        raise OSError(2, f"group {group}: there is no such group") from None


def become(
    spec: dict[str, Any], env: dict[str, str], who: Identity, output: str, terminal: tuple[int, int],
    gate: int, report: int,
) -> NoReturn:  # fmt: skip
    """Wait at `gate`, then run the program. What goes wrong is told to `report` as JSON: errno, text."""
    try:
        if not os.read(gate, 1):  # our keeper was killed before it had written down who we are
            os._exit(127)
        os.setsid()
        for number in IGNORED:
            signal.signal(number, signal.SIG_DFL)
        _open_output(output, terminal, who)
        lent = spec["lent"] if who.is_another else {}
        _lend_all(lent, who, env)
        if spec["cwd"] in lent.values():  # its user would have no way to it
            os.chdir(spec["cwd"])
        _limit(spec)
        with named(f"user {who.name}" if who.name else f"group {who.gid}"):
            _change(who)
        os.umask(spec["umask"])
        if spec["cwd"] not in lent.values():
            with named(f"cwd {spec['cwd']}"):
                os.chdir(spec["cwd"])
        os.execve(spec["argv"][0], spec["argv"], env)  # noqa: S606 - no shell on purpose
    except (OSError, ValueError) as error:
        os.write(report, json.dumps(reason(error)).encode())
    finally:
        os._exit(127)


def reason(error: OSError | ValueError) -> tuple[int, str]:
    """The errno of what went wrong, and its text; a value that the system does not take is EINVAL."""
    code = getattr(error, "errno", None) or errno.EINVAL
    return code, getattr(error, "strerror", None) or str(error)


@contextlib.contextmanager
def named(thing: str) -> Iterator[None]:
    """What goes wrong is said to be about `thing`."""
    try:
        yield
    except (OSError, ValueError) as error:
        code, text = reason(error)
        raise OSError(code, f"{thing}: {text}") from None


def _limit(spec: dict[str, Any]) -> None:
    for name, value in spec["limits"].items():
        with named(f"limits.{name}"):
            resource.setrlimit(LIMITS[name], (value, value))
    if spec["nice"] is not None:
        with named("nice"):
            os.setpriority(os.PRIO_PROCESS, 0, spec["nice"])


def _change(who: Identity) -> None:
    if who.gid >= 0:
        if os.geteuid() == 0:
            os.setgroups(who.groups)
        os.setresgid(who.gid, who.gid, who.gid)
    if who.uid >= 0:
        os.setresuid(who.uid, who.uid, who.uid)


def _lend_all(lent: dict[str, str], who: Identity, env: dict[str, str]) -> None:
    for name, path in lent.items():
        with named(path):
            env[name] = f"/proc/self/fd/{_lend(path, who)}"


def _lend(path: str, who: Identity) -> int:
    """A descriptor that stays open, of a folder that becomes its own, or of a copy of a private file."""
    if os.path.isdir(path):  # noqa: PTH112
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        with open(path, "rb") as file:  # noqa: PTH123
            text = file.read()
        fd = os.memfd_create("private")
        os.fchmod(fd, 0o600)
        os.write(fd, text)
    os.fchown(fd, who.uid, who.gid)
    return fcntl.fcntl(fd, fcntl.F_DUPFD, SPARE)


def _open_output(output: str, terminal: tuple[int, int], who: Identity) -> None:
    master, slave = terminal
    if slave >= 0:
        # Its own descriptor of the other end: so it has a terminal also when its keeper is killed.
        fcntl.fcntl(master, fcntl.F_DUPFD, SPARE)
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        if who.uid >= 0:
            os.fchown(slave, who.uid, -1)
        for number in (0, 1, 2):
            os.dup2(slave, number)
        return
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Open for reading too: its own descriptor counts as a reader, so no EPIPE when its keeper dies.
    both = os.open(output, os.O_RDWR)
    if who.uid >= 0:
        os.fchown(both, who.uid, -1)  # for programs that open /dev/stdout
    os.dup2(both, 1)
    os.dup2(both, 2)
