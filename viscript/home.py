"""The home of one instance: where everything of it is on disk, and who may use it."""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from viscript import directories
from viscript.errors import Conflict, Denied

# For what runs on its own: names in the configuration are UTF-8 on disk, too, whatever the locale says.
PYTHON = (sys.executable, "-X", "utf8")
LOOKS = 10  # at a lock before it counts as held
MAX_RUN = 80  # characters; socket paths end at 108 and the names in it need some


@dataclass(frozen=True)
class Home:
    """Paths below one folder; `root` is absolute."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def launches(self) -> Path:
        return self.root / "launches"

    @property
    def database(self) -> Path:
        return self.root / "state" / "viscript.db"

    @property
    def events(self) -> Path:
        """What happened to launches, as JSON lines."""
        return self.root / "state" / "events.jsonl"

    @property
    def roles(self) -> Path:
        """Who else may what."""
        return self.root / "roles.yaml"

    @property
    def audit(self) -> Path:
        return self.root / "state" / "audit.jsonl"

    @property
    def jobs(self) -> Path:
        return self.root / "state" / "jobs.db"

    @property
    def snapshot(self) -> Path:
        """The names that completion offers."""
        return self.root / "state" / "completion.json"

    @property
    def in_force(self) -> Path:
        """The configuration that the daemon has."""
        return self.root / "state" / "config.json"

    @property
    def history(self) -> Path:
        """What was typed at the prompt."""
        return self.root / "history"

    @property
    def broker(self) -> Path:
        """The broker's own configuration."""
        return self.root / "broker.json"

    @property
    def access(self) -> Path:
        return self.root / "access.json"

    @property
    def daemon(self) -> Path:
        """Where the running daemon says how to reach it."""
        return self.root / "daemon.json"

    @property
    def lock(self) -> Path:
        return self.root / "daemon.lock"

    @property
    def run(self) -> Path:
        """For sockets: short, whatever the home's path is."""
        inside = self.root / "run"
        if len(str(inside)) < MAX_RUN:
            return inside
        digest = blake2b(str(self.root).encode(), digest_size=6).hexdigest()
        return Path(f"/tmp/viscript-{os.getuid()}-{digest}")  # noqa: S108 - owner and mode are checked

    @property
    def broker_log(self) -> Path:
        return self.logs / "broker.log"

    @property
    def daemon_log(self) -> Path:
        return self.logs / "daemon.log"

    def app_key(self, slot: str) -> Path:
        return self.keys / "apps" / f"{slot}.key"

    def app_state(self, slot: str) -> Path:
        return self.root / "state" / "apps" / slot

    def app_log(self, number: int, app: str) -> Path:
        return self.logs / f"{number}-{app}.log"

    def ctl(self, number: int) -> Path:
        """The socket of a launch's keeper."""
        return self.run / f"keeper-{number}.ctl"

    def exists(self) -> bool:
        return self.database.exists()

    @property
    def folders(self) -> tuple[Path, ...]:
        """What is in it and nobody else's business."""
        return (
            self.keys, self.keys / "apps", self.logs, self.launches,
            self.database.parent, self.database.parent / "apps", self.run,
        )  # fmt: skip

    def create(self) -> None:
        """Make the folders, private to the user; `Denied` when one is not ours, cannot be made or written."""
        _private(self.root, forbidden=0o022)  # nothing secret is directly in it
        for folder in self.folders:
            _private(folder)


def find(option: str | None, environment: Mapping[str, str]) -> Home:
    """`--home`, else VISCRIPT_HOME, else the user's state folder."""
    return Home(Path(directories.home(option, environment)))


def _private(folder: Path, forbidden: int = 0o077) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise Denied(f"{folder}: cannot be made: {error.strerror}; choose another --home") from None
    if stat.S_ISLNK(found.st_mode):
        found = folder.stat()
    if found.st_uid != os.getuid():
        raise Denied(
            f"{folder}: belongs to another user (uid {found.st_uid}); choose another --home"
        )
    if found.st_mode & forbidden:
        raise Denied(
            f"{folder}: open to other users (mode {stat.S_IMODE(found.st_mode):04o}); "
            f"run: chmod 700 {folder}"
        )
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise Denied(
            f"{folder}: cannot be written (mode {stat.S_IMODE(found.st_mode):04o}); "
            f"run: chmod 700 {folder}, or make the file system writable again"
        )


class DaemonLock:
    """Held by the one daemon of a home, or by a command that must be sure there is none."""

    def __init__(self, home: Home) -> None:
        """`Conflict` when another process holds it."""
        self._fd = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for _ in range(LOOKS):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # perhaps only `is_locked` of another command
                time.sleep(0.02)
            else:
                return
        os.close(self._fd)
        raise occupied(home)

    def release(self) -> None:
        os.close(self._fd)


def occupied(home: Home) -> Conflict:
    return Conflict(
        f"{home.root}: a daemon runs here already; see: viscript status, or use another --home"
    )


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock file `path`."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def holder(path: Path) -> int | None:
    """Which process holds the lock file `path`, as far as /proc tells: what files say may be of another."""
    try:
        lock = path.stat()
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return None
    # As in "1: FLOCK ADVISORY WRITE 4711 08:01:1234 0 EOF"; who only waits for it has an arrow before.
    for words in lines:
        flock = len(words) > 5 and (words[1], words[3]) == ("FLOCK", "WRITE")
        if flock and words[5].endswith(f":{lock.st_ino}") and _has_open(words[4], lock):
            return int(words[4])
    return None


def _has_open(pid: str, file: os.stat_result) -> bool:
    """/proc/locks has numbers of devices that are not always those of stat."""
    try:
        with os.scandir(f"/proc/{pid}/fd") as found:
            return any(os.path.samestat(file, each.stat()) for each in found)
    except OSError:
        return False


def signal_holder(path: Path, number: int) -> bool:
    """Send a signal to the process that holds `path` and to no other; False when it is not to be found."""
    import signal

    pid = holder(path)
    if pid is None:
        return False
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if holder(path) != pid:  # so that the descriptor is of the one that was found
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True
