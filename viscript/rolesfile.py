"""`roles.yaml` of a home: read strictly, written whole or not at all; what is wrong in it allows nothing."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Any

import yaml

from viscript.errors import BadConfig, BadUsage, Denied
from viscript.roles import EVERYTHING, MAX_GRANTS, Grant, Policy, Role

MAX_BYTES = 1 << 20
_FIELDS = {"key", "role", "on", "name"}
_HEAD = """\
# Who may what on this host, beside its own keys. Written by `viscript role`; it may be edited, too.
# role: view < operate < configure < admin; on: a selector of apps (default: everything).
"""


def load(path: Path) -> Policy:
    """What the file says; without one nobody may anything. `BadConfig`; `Denied` when others may write it."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_uid not in {os.getuid(), 0} or found.st_mode & 0o022:
                mode = stat.S_IMODE(found.st_mode)
                raise Denied(
                    f"{path}: others may change it (mode {mode:04o}); run: chmod 600 {path}"
                )
            text = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Policy()
    except OSError as error:
        raise Denied(f"{path}: cannot be read: {error.strerror}") from None
    if len(text) > MAX_BYTES:
        raise BadConfig(f"{path}: larger than {MAX_BYTES >> 20} MiB")
    try:
        return _policy(yaml.safe_load(text))
    except (yaml.YAMLError, UnicodeError, RecursionError, ValueError) as error:
        raise BadConfig(f"{path}: not YAML: {error}") from None
    except BadUsage as error:
        raise BadConfig(f"{path}: {error}") from None


def _policy(root: Any) -> Policy:  # noqa: ANN401 - what YAML makes of it
    if root is None:
        return Policy()
    if not isinstance(root, dict) or root.keys() - {"keys"}:
        raise BadUsage("it consists of `keys:`, a list of {key, role, on, name}")
    policy, entries = Policy(), root.get("keys") or []
    if not isinstance(entries, list) or len(entries) > MAX_GRANTS:
        raise BadUsage(f"`keys` is a list of at most {MAX_GRANTS}")
    for number, entry in enumerate(entries, 1):
        try:
            grant = _grant(entry)
            if any((x.key, x.on) == (grant.key, grant.on) for x in policy.grants):
                raise BadUsage(f"the key {grant.key} stands there twice for {grant.on}")
            policy = policy.with_grant(grant)
        except BadUsage as error:
            raise BadUsage(f"entry {number} of `keys`: {error}") from None
    return policy


def _grant(entry: Any) -> Grant:  # noqa: ANN401 - what YAML makes of it
    if not isinstance(entry, dict) or not {"key", "role"} <= entry.keys() <= _FIELDS:
        raise BadUsage("it needs key and role, and may have on and name; nothing else")
    if not all(isinstance(value, str) for value in entry.values()):
        raise BadUsage("all of it is text; put it in quotes")
    on = entry.get("on", EVERYTHING)
    return Grant(entry["key"], Role.named(entry["role"]), on, entry.get("name", ""))


def save(path: Path, policy: Policy) -> None:
    """`Denied` when it cannot be written."""
    keys = [{"key": x.key, "role": str(x.role), "on": x.on, "name": x.name} for x in policy.grants]
    text = _HEAD + yaml.safe_dump({"keys": keys}, sort_keys=False, allow_unicode=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Denied(f"{path}: cannot be written: {error.strerror}") from None
