"""Named brokers of a user: where each listens, the key it must prove, and which key file is ours there.

One file each in the user's configuration folder, of mode 0600. No secret is in it: the key stays in its own
file. Which context is chosen for commands that name none is in a file of its own.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

import msgspec
from msgspec import Struct

from bus.identity import Address, is_key
from viscript.errors import BadConfig, BadUsage, Conflict, Denied, NotFound
from viscript.words import did_you_mean

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_ENDPOINT = re.compile(r"(?:tcp://[^\s/]+:\d{1,5}|ipc://\S+)")
MAX_FILE = 64 << 10  # bytes
ENDING = ".json"


class Context(Struct, frozen=True, forbid_unknown_fields=True):
    """What a name stands for."""

    endpoint: str
    broker_key: str
    key_file: str  # absolute

    @property
    def address(self) -> Address:
        return Address(self.endpoint, self.broker_key)


def default_folder() -> Path:
    """Below the user's configuration folder."""
    from viscript.directories import Directories

    return Path(Directories(os.environ).config)


def address(endpoint: str, broker_key: str) -> Address:
    """`BadUsage` when one of them cannot be meant."""
    if not _ENDPOINT.fullmatch(endpoint):
        raise BadUsage(f"not an endpoint: {endpoint!r}; it looks like tcp://127.0.0.1:7600")
    if not is_key(broker_key):
        raise BadUsage(
            f"not a broker key: {broker_key!r}; it has 40 characters, and `viscript status` shows it"
        )
    return Address(endpoint, broker_key)


class Contexts:
    """The contexts in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = folder / "contexts"
        self._selected = folder / "context"

    def names(self) -> list[str]:
        """All, sorted; none when there is no folder."""
        found = self._files.glob(f"*{ENDING}")
        return sorted(p.stem for p in found if _NAME.fullmatch(p.stem))

    def load(self, name: str) -> Context:
        """`NotFound`, `Denied` when others may change it, `BadConfig` when it is none."""
        path = self._path(name)
        try:
            text = _read(path)
        except FileNotFoundError:
            hint = did_you_mean(name, self.names()) or "; see: viscript bus context list"
            raise NotFound(f"there is no context {name!r}{hint}") from None
        try:
            found = msgspec.json.decode(text, type=Context)
            address(found.endpoint, found.broker_key)
        except (msgspec.MsgspecError, ValueError, RecursionError, BadUsage) as error:
            raise BadConfig(
                f"{path}: {error}; make it anew: viscript bus context add {name} --force"
            ) from None
        return found

    def save(self, name: str, context: Context, *, replace: bool = False) -> Path:
        """Write the file; `Conflict` when there is one already and `replace` is not set."""
        path = self._path(name)
        if path.exists() and not replace:
            raise Conflict(
                f"there is a context {name!r} already; replace it with --force, or see: "
                f"viscript bus context show {name}"
            )
        _write(path, msgspec.json.format(msgspec.json.encode(context), indent=2) + b"\n")
        return path

    def remove(self, name: str) -> None:
        """Its key file stays. `NotFound`."""
        path = self._path(name)
        try:
            path.unlink()
        except FileNotFoundError:
            hint = did_you_mean(name, self.names()) or "; see: viscript bus context list"
            raise NotFound(f"there is no context {name!r}{hint}") from None
        if self.selected == name:
            self._selected.unlink(missing_ok=True)

    @property
    def selected(self) -> str | None:
        """The one for commands that name none."""
        try:
            return _read(self._selected).decode(errors="replace").strip() or None
        except FileNotFoundError:
            return None

    def select(self, name: str | None) -> None:
        """None: commands that name none use the instance of their home again. `NotFound`."""
        if name is None:
            self._selected.unlink(missing_ok=True)
            return
        self.load(name)
        _write(self._selected, f"{name}\n".encode())

    def key_path(self, name: str) -> Path:
        """Where the key of a context is put that names no other place."""
        return self._path(name).parent.parent / "keys" / f"{name}.key"

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise BadUsage(
                f"not a name for a context: {name!r}; letters, digits and _.- are, at most 64"
            )
        return self._files / f"{name}{ENDING}"


def _read(path: Path) -> bytes:
    """`FileNotFoundError`; `Denied` when somebody else may say which broker we trust."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_uid not in {os.getuid(), 0} or found.st_mode & 0o022:
                mode = stat.S_IMODE(found.st_mode)
                raise Denied(
                    f"{path}: others may change it (mode {mode:04o}, uid {found.st_uid}); "
                    f"run: chmod 600 {path}"
                )
            text = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Denied(f"{path}: cannot be read: {error.strerror}") from None
    if len(text) > MAX_FILE:
        raise BadConfig(f"{path}: larger than {MAX_FILE} bytes")
    return text


def _write(path: Path, text: bytes) -> None:
    """Whole or not at all, private. `Denied` when it cannot be."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Denied(f"{path}: cannot be written: {error.strerror}") from None
