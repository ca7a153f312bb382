"""Words of the file that stand for numbers: durations, sizes, signals. `ValueError` says what is wrong."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import Literal

UNLIMITED = -1  # RLIM_INFINITY
MAX_SECONDS = 3650 * 86400.0
MAX_BYTES = (1 << 63) - 1

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ENDPOINT = re.compile(r"tcp://\[?[A-Za-z0-9_.:-]+\]?:[0-9]{1,5}")
DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?")
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(B|KiB|MiB|GiB|TiB|kB|MB|GB|TB)?")
UMASK = re.compile(r"(?:0o)?([0-7]{3,4})")
SIGNAL = re.compile(r"[A-Za-z0-9+-]{1,16}")
HOST_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.%{}]+\]|[A-Za-z0-9_.{}-]+):[0-9{}i]{1,12}")
URL = re.compile(r"https?://[!-~]+")
ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\$?")
_NUMBER = re.compile(r"-?[0-9]{1,18}")

_SECONDS = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip
_PASSING = {  # they end nothing: a program that only gets these never stops
    signal.SIGSTOP, signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD,
    signal.SIGURG, signal.SIGWINCH,
}  # fmt: skip

Kind = Literal["count", "seconds", "bytes"]
LIMITS: dict[str, Kind] = {
    "nofile": "count", "nproc": "count", "as": "bytes", "core": "bytes", "fsize": "bytes",
    "cpu": "seconds", "stack": "bytes", "data": "bytes", "memlock": "bytes",
}  # fmt: skip


def duration(text: str) -> float:
    """Seconds."""
    found = DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a duration: seconds, or 500ms, 10s, 5m, 2h, 7d")
    seconds = float(found[1]) * _SECONDS[found[2]]
    if seconds > MAX_SECONDS:
        raise ValueError(f"{text!r} is longer than ten years")
    return seconds


def some_time(text: str) -> float:
    """Seconds, more than none."""
    seconds = duration(text)
    if seconds <= 0:
        raise ValueError(f"{text!r}: must be longer than 0 s")
    return seconds


def size(text: str) -> int:
    """Bytes."""
    found = SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a size: bytes, or 64KiB, 10MiB, 2GiB, 10MB")
    count = float(found[1]) if "." in found[1] else int(found[1])
    total = count * _BYTES[found[2]]
    if total > MAX_BYTES:
        raise ValueError(f"{text!r} is more than 8 EiB")
    return int(total)


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number from `low` to `high`."""

    def read(text: str) -> int:
        number = int(text) if _NUMBER.fullmatch(text) else None
        if number is None or not low <= number <= high:
            raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
        return number

    return read


def signal_number(text: str) -> int:
    """A signal by its name, with or without SIG, or its number."""
    word = text.upper().removeprefix("SIG")
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) < 4 else 0
    else:
        number = next((s.value for s in signal.Signals if s.name == f"SIG{word}"), 0)
    if not 1 <= number < signal.NSIG:
        raise ValueError(f"{text!r} is not a signal, like TERM, INT, HUP or USR1")
    return number


def ending_signal(text: str) -> int:
    """A signal that can end a program."""
    number = signal_number(text)
    if number in _PASSING:
        raise ValueError(f"{text!r} does not end a program; take TERM, INT, QUIT or KILL")
    return number


def caught_signal(text: str) -> int:
    """A signal that a program can act upon."""
    number = signal_number(text)
    if number in {signal.SIGKILL, signal.SIGSTOP}:
        raise ValueError(f"{text!r} cannot be caught by a program; take HUP, USR1 or USR2")
    return number


def umask(text: str) -> int:
    """Three or four octal digits, as for chmod."""
    found = UMASK.fullmatch(text)
    if found is None or int(found[1], 8) > 0o777:
        raise ValueError(f"{text!r} is not a umask of three octal digits, like 022 or 077")
    return int(found[1], 8)


def limit(kind: Kind) -> Callable[[str], int]:
    """A number, a size or seconds by `kind`; `unlimited` is UNLIMITED."""
    read: Callable[[str], float] = {
        "count": whole(0, MAX_BYTES), "bytes": size, "seconds": duration,
    }[kind]  # fmt: skip

    def read_limit(text: str) -> int:
        if text == "unlimited":
            return UNLIMITED
        value = read(text)
        if value != int(value):
            raise ValueError(f"{text!r}: whole seconds only")
        return int(value)

    return read_limit


def host_port(text: str) -> str:
    """HOST:PORT as it is written; `{i}` may stand in it."""
    port = text.replace("{i}", "0").rpartition(":")[2]
    if not HOST_PORT.fullmatch(text) or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not HOST:PORT, like 127.0.0.1:8080 or [::1]:8080")
    return text


def url(text: str) -> str:
    """An http or https address as it is written."""
    if not URL.fullmatch(text):
        raise ValueError(f"{text!r} is not a URL, like http://127.0.0.1:8080/health")
    return text


def expression(text: str) -> str:
    """A regular expression that compiles."""
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None
    return text


def endpoint(text: str) -> str:
    """tcp://HOST:PORT as it is written."""
    if not ENDPOINT.fullmatch(text) or int(text.rpartition(":")[2]) > 65535:
        raise ValueError(f"{text!r} is not tcp://HOST:PORT")
    return text


def name(text: str) -> str:
    """A name of an app or a group."""
    if not NAME.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a name: a letter, then letters, digits and '_.-', at most 64"
        )
    return text


def account(text: str) -> str:
    """A user or a group, by name or number."""
    if not ACCOUNT.fullmatch(text):
        raise ValueError(f"{text!r} is not the name or number of a user or group")
    return text


def some_text(text: str) -> str:
    if not text:
        raise ValueError("empty")
    return text
