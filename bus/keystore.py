"""Keys and access lists on disk: private (0600), written atomically, refused when others can read them."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from bus import access
from bus.access import AccessError, AccessList
from bus.errors import KeyFileError
from bus.identity import KeyPair, is_key
from bus.sockets import new_keypair, public_of

_PAUSE = 0.005  # seconds between tries to get the lock
_MAX_FILE = 16 << 20  # bytes; an access list of 100,000 keys


class _KeyFile(msgspec.Struct, frozen=True):
    public: str
    secret: str


def create(path: Path, *, lasting: bool = True) -> KeyPair:
    """Make a new key pair in a new file of mode 0600; `FileExistsError` when there is one.

    The file appears whole or not at all, whatever happens to the disk or the power. Not `lasting`: it is as
    after a full disk, but until `make_lasting` a power cut may take it away or leave it empty.
    """
    keypair = new_keypair()
    text = msgspec.json.encode(_KeyFile(keypair.public, keypair.secret)) + b"\n"
    with _written(path, text, lasting=lasting) as temporary:
        os.link(temporary, path)  # other than a rename, it never replaces
        temporary.unlink()
    return keypair


def load(path: Path) -> KeyPair:
    """The key pair in `path`; `KeyFileError` says what is wrong and what to do."""
    text = read_private(path)
    try:
        found = msgspec.json.decode(text, type=_KeyFile)
        if not is_key(found.secret) or public_of(found.secret) != found.public:
            raise ValueError("the halves do not match")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise KeyFileError(
            f"{path}: not a key file (JSON with a matching 'public' and 'secret' key); "
            "move it away to have a new key made"
        ) from None
    return KeyPair(found.public, found.secret)


def load_or_create(path: Path, *, lasting: bool = True) -> KeyPair:
    """`load`, or `create` with its folder (0700) when there is no file yet, or one that was not to last."""
    with suppress(FileNotFoundError):
        if path.stat().st_size or lasting:
            return load(path)
        path.unlink()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return create(path, lasting=lasting)
    except FileExistsError:  # somebody was faster
        return load(path)


def make_lasting(paths: Iterable[Path]) -> None:
    """From its return on these files survive a power cut; `OSError`. What is gone meanwhile is left out."""
    folders = set()
    for path in paths:
        with suppress(FileNotFoundError):
            _sync(path, os.O_RDONLY)
            folders.add(path.parent)
    for folder in folders:
        _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_access(path: Path) -> AccessList:
    """The access list in `path`; `AccessError` names the file."""
    try:
        return access.decode(read_private(path))
    except (AccessError, KeyFileError) as error:
        raise AccessError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def save_access(path: Path, entries: AccessList) -> None:
    """Replace the file at once and for good: after return it survives a power cut.

    `AccessError` when the list is longer than a file may be, `OSError` when it cannot be written; then the
    old file is whole.
    """
    text = access.encode(entries)
    if len(text) > _MAX_FILE:
        raise AccessError(f"{path}: the list would have {len(text)} bytes, at most {_MAX_FILE}")
    write_private(path, text)


# What tells a file from the one that takes its place.
Stamp = tuple[int, int, int]


def stamp(path: Path) -> Stamp | None:
    """The file's inode, time of change and size; None when there is none; `OSError`."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


@contextmanager
def locked(folder: Path, patience: float) -> Iterator[None]:
    """Alone with a broker's folder; `OSError` when somebody else has been for `patience` seconds.

    Held for one small write. Nobody waits for longer, so that a stopped program cannot hold up a broker.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    problem = "another program is changing it; try again"
                    raise BlockingIOError(11, problem, str(folder)) from None
                time.sleep(_PAUSE)
        yield
    finally:
        os.close(descriptor)


class AccessFile:
    """The access list of a running broker, which is never saved over what somebody else has written."""

    def __init__(self, path: Path, *, patience: float) -> None:
        self._path = path
        self._patience = patience  # seconds
        self._seen: Stamp | None = None

    def load(self) -> AccessList:
        """As `load_access`."""
        with suppress(OSError):  # which reading it will tell
            self._seen = stamp(self._path)
        return load_access(self._path)

    def save(self, entries: AccessList) -> None:
        """As `save_access`; `AccessError` when the file is not the one that was loaded or saved last."""
        with locked(self._path.parent, self._patience):
            if stamp(self._path) != self._seen:
                raise AccessError(
                    f"{self._path} was changed by another program and is being read again; try again"
                )
            save_access(self._path, entries)
            self._seen = stamp(self._path)


def write_private(path: Path, text: bytes) -> None:
    """Replace the file, mode 0600, at once and for good; `OSError` leaves the old one whole."""
    with _written(path, text) as temporary:
        temporary.replace(path)


@contextmanager
def _written(path: Path, text: bytes, *, lasting: bool = True) -> Iterator[Path]:
    """A private file beside `path` with `text` safe on disk, to be given its name; its folder is synced."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if lasting:
        _sync(path.parent, os.O_RDONLY | os.O_DIRECTORY)


def read_private(path: Path) -> bytes:
    """What is in the file; `KeyFileError` when it is missing, too large or others may reach it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                raise KeyFileError(
                    f"{path}: others may read or write it (mode {stat.S_IMODE(mode):04o}); "
                    f"run: chmod 600 {path}"
                )
            text = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        raise KeyFileError(f"{path}: no such file") from None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from None
    if len(text) > _MAX_FILE:
        raise KeyFileError(f"{path}: larger than {_MAX_FILE} bytes")
    return text
