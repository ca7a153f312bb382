"""nftables by its own program: whole rule sets in one transaction. Blocking; call it from a thread."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

TIMEOUT: Final = 10.0  # seconds
_PLACES: Final = ("/usr/sbin/nft", "/sbin/nft")  # where it is when it is not in PATH


class NftError(Exception):
    """nftables cannot be used, or does not take a rule; the text says why and the way out."""


def apply(rules: str) -> None:
    """Carry rules out, all of them or none; raises NftError."""
    _run("-f", "-", given=rules)


def comment(family: str, table: str) -> str | None:
    """What the table says of itself; None when it is not there. Raises NftError."""
    for each in _list("tables", family):
        found = each.get("table", {})
        if found.get("name") == table:
            # nft 1.0 does not say it in JSON, but as text.
            text = _run("list", "table", family, table)
            first = next((line for line in text.splitlines() if "comment" in line), "")
            return first.partition('"')[2].rpartition('"')[0]
    return None


def counters(family: str, table: str) -> Mapping[str, tuple[int, int]]:
    """Packets and bytes by the counter's name; empty when there is no such table. Raises NftError."""
    found = (each.get("counter", {}) for each in _list("counters", family))
    return {
        counter["name"]: (counter["packets"], counter["bytes"])
        for counter in found
        if counter.get("table") == table
    }


def delete(family: str, table: str) -> None:
    """Remove a table, if it is there; raises NftError."""
    apply(f"add table {family} {table}\ndelete table {family} {table}\n")


def _list(what: str, family: str) -> list[dict[str, dict[str, Any]]]:
    found = json.loads(_run("-j", "list", what, family))["nftables"]
    return list(found)


def program() -> str:
    """Where nft is; raises NftError."""
    found = shutil.which("nft") or next((path for path in _PLACES if Path(path).exists()), None)
    if found is None:
        raise NftError("nft is not there; install it (Debian: apt-get install nftables)")
    return found


def _run(*words: str, given: str | None = None) -> str:
    try:
        done = subprocess.run(
            [program(), *words], input=given, capture_output=True, text=True, check=False,
            timeout=TIMEOUT, env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NftError(f"nft did not answer within {TIMEOUT:g} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        remedy = "; it needs CAP_NET_ADMIN: run viscript as root" if "permitted" in said[0] else ""
        raise NftError(f"nft: {said[0]}{remedy}")
    return done.stdout
