"""A network namespace of its own, and a thread that lives in it. Linux.

The namespace has no name and no file: it lasts as long as the thread, a socket or a TUN device made in it.
So nothing is left of it when the process is killed.
"""

import asyncio
import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

CLONE_NEWNET: Final = 0x40000000
# linux/capability.h: by their numbers, the bits of CapEff.
CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
NFT_TIMEOUT: Final = 20.0  # seconds; it takes milliseconds
_SBIN: Final = ":/usr/local/sbin:/usr/sbin:/sbin"  # which the PATH of a user may lack


class CannotSetUp(Exception):
    """The machine does not let us; the text says what is missing and the way out."""


class Namespace:
    """A new namespace, and the thread in which everything about it is done, one after the other."""

    def __init__(self) -> None:
        """Raises CannotSetUp."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="namespace")
        try:
            self.descriptor = self._thread.submit(_enter).result()
        except BaseException:
            self._thread.shutdown()
            raise

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do `work` in the namespace; what it raises is raised here."""
        future = self._thread.submit(work, *args, **kwargs)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the thread; the namespace goes with what is left in it."""
        os.close(self.descriptor)
        self._thread.shutdown()


def lacking() -> list[str]:
    """The capabilities that are needed and not there."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    effective = int(line.split()[1], 16)
    return [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]


def nft(rules: str) -> str:
    """Have nft carry out `rules`, all or nothing, in the namespace of this thread; raises CannotSetUp."""
    return _nft(["-f", "-"], rules)


def list_rules(*what: str) -> str:
    """What is in force, as JSON: `list_rules("tables")`; raises CannotSetUp."""
    return _nft(["-j", "list", *what], "")


def _nft(arguments: list[str], rules: str) -> str:
    program = shutil.which("nft", path=os.environ.get("PATH", os.defpath) + _SBIN)
    if program is None:
        raise CannotSetUp("nft is not installed: apt-get install nftables")
    try:
        done = subprocess.run(
            [program, *arguments], input=rules, capture_output=True, text=True,
            timeout=NFT_TIMEOUT, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotSetUp(f"{program}: {error}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise CannotSetUp(f"nft did not take the rules: {said[0]}; is nf_tables in the kernel?")
    return done.stdout


def write_setting(name: str, value: str) -> None:
    """Write a sysctl of the namespace of this thread, `net/ipv4/ip_forward`; raises CannotSetUp."""
    try:
        Path("/proc/sys", name).write_text(value, encoding="ascii")
    except OSError as error:
        raise CannotSetUp(f"/proc/sys/{name} = {value}: {error.strerror}") from None


def read_setting(name: str) -> str | None:
    """A sysctl, or None where the kernel has none of that name."""
    try:
        return Path("/proc/sys", name).read_text(encoding="ascii").strip()
    except OSError:
        return None


def _enter() -> int:
    """Move this thread into a new namespace; gives a descriptor of it."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise CannotSetUp(
            f"no network namespace: {os.strerror(number)}; it needs CAP_SYS_ADMIN: run viscript as root"
        )
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
