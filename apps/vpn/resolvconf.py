"""Who is asked for names: /etc/resolv.conf while the VPN is on, put back exactly as it was. Linux.

Where systemd-resolved answers, it is told, too, for the device alone; it forgets that with the device.
Blocking; call it from a thread.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apps.vpn.killswitch import Address

FILE: Final = Path("/etc/resolv.conf")
MARK: Final = "# By viscript vpn; as it was before: viscript vpn off\n"
TIMEOUT: Final = 5.0  # seconds
_RESOLVED: Final = Path("/run/systemd/resolve")
_MAX: Final = 64 * 1024  # bytes of a resolv.conf; nobody has more


class ResolvError(Exception):
    """resolv.conf cannot be read or written; the text says why."""


class Before(msgspec.Struct, frozen=True):
    """What resolv.conf was: a file with `content`, a symbolic link to `target`, or nothing."""

    content: bytes | None = None
    target: str | None = None
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    times: tuple[int, int] = (0, 0)  # ns: read, written


def read(file: Path = FILE) -> Before:
    """What is there now; raises ResolvError."""
    try:
        found = file.lstat()
        if stat.S_ISLNK(found.st_mode):
            return Before(target=str(file.readlink()))
        with file.open("rb") as opened:
            content = opened.read(_MAX)
    except FileNotFoundError:
        return Before()
    except OSError as error:
        raise ResolvError(f"{file}: {error.strerror}") from None
    return Before(
        content, None, stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid),
        (found.st_atime_ns, found.st_mtime_ns),
    )  # fmt: skip


def is_ours(file: Path = FILE) -> bool:
    """Whether it is what `write` wrote."""
    now = read(file)
    return now.content is not None and now.content.startswith(MARK.encode())


def text(resolvers: Sequence[Address], before: Before) -> str:
    """Our resolv.conf: our resolvers, and the rest of what was there (search, options)."""
    kept = [
        line
        for line in (before.content or b"").decode(errors="replace").splitlines()
        if line.split(None, 1)[:1] in (["search"], ["options"], ["domain"])
    ]
    return MARK + "\n".join([*(f"nameserver {each}" for each in resolvers), *kept]) + "\n"


def is_written(resolvers: Sequence[Address], file: Path = FILE) -> bool:
    """Whether it is ours with these resolvers; what else stands in it may be another's wish."""
    lines = (read(file).content or b"").decode(errors="replace").splitlines()
    asked = [line.split()[1:2] for line in lines if line.startswith("nameserver")]
    return is_ours(file) and asked == [[str(each)] for each in resolvers]


def write(resolvers: Sequence[Address], before: Before, file: Path = FILE) -> None:
    """Have names asked for at `resolvers`; raises ResolvError. `before` is what `read` gave and is safe."""
    wanted = text(resolvers, before).encode()
    if read(file).content == wanted:
        return
    try:
        if file.is_symlink():  # what it points to is somebody else's
            _replace(file, lambda new: new.write_bytes(wanted))
        else:
            _fill(file, wanted)
            if before.content is None:
                file.chmod(0o644)
    except OSError as error:
        raise ResolvError(f"{file}: {error.strerror}") from None


def put_back(before: Before, file: Path = FILE) -> bool:
    """As it was; False when somebody else has written it since, and it stays. Raises ResolvError."""
    if not is_ours(file):
        return False
    try:
        if before.target is not None:
            target = before.target
            _replace(file, lambda new: new.symlink_to(target))
        elif before.content is None:
            file.unlink()
        else:
            _fill(file, before.content)
            file.chmod(before.mode)
            os.chown(file, *before.owner)
            os.utime(file, ns=before.times)
    except OSError as error:
        raise ResolvError(f"{file}: {error.strerror}") from None
    return True


def tell_resolved(device: str, resolvers: Sequence[Address]) -> str:
    """Have systemd-resolved ask there for all names; what was wrong, empty where it is well or not there."""
    program = shutil.which("resolvectl")
    if program is None or not _RESOLVED.is_dir():
        return ""
    for words in (
        ("dns", device, *map(str, resolvers)),
        ("domain", device, "~."),
        ("default-route", device, "yes"),
    ):
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                [program, *words], capture_output=True, text=True, check=False, timeout=TIMEOUT
            )
            if done.returncode == 0:
                continue
            return f"resolvectl {words[0]}: {done.stderr.strip() or done.returncode}"
        return f"resolvectl {words[0]}: no answer within {TIMEOUT:g} s"
    return ""


def _fill(file: Path, content: bytes) -> None:
    """Write into the file that is there: it may be mounted, and then cannot be replaced."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        os.pwrite(descriptor, content, 0)  # at no moment is it empty
        os.ftruncate(descriptor, len(content))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(file: Path, make: Callable[[Path], object]) -> None:
    new = file.with_name(f".{file.name}.viscript")
    new.unlink(missing_ok=True)
    make(new)
    new.rename(file)
