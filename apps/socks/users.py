"""Usernames and passwords from a file: one `name:password` a line, `#` begins a comment line."""

import stat
from pathlib import Path


class UserFileError(Exception):
    """The file of users cannot be used; the text says which line or permission, and the way out."""


def read_users(path: Path) -> dict[bytes, bytes]:
    """Give name -> password; raise UserFileError."""
    try:
        mode = path.stat().st_mode
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserFileError(
            f"user file {path}: {error.strerror}; it holds name:password lines and has mode 600"
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserFileError(f"user file {path}: others can read it; chmod 600 {path}")
    users: dict[bytes, bytes] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith(b"#"):
            continue
        name, colon, password = line.partition(b":")
        if not colon or not 1 <= len(name) <= 255 or not 1 <= len(password) <= 255:
            # RFC 1929 gives each one length byte. The line itself is not quoted: it holds a secret.
            raise UserFileError(
                f"user file {path}:{number}: want name:password, each of 1 to 255 bytes"
            )
        if name in users:
            raise UserFileError(f"user file {path}:{number}: a second line for the same name")
        users[name] = password
    if not users:
        raise UserFileError(f"user file {path}: no users in it; write name:password lines")
    return users
