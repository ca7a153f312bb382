"""A whole screen of a terminal, key by key; everything is put back however it ends."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object]

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[0m\x1b[?25h\x1b[?1049l"
_KEYS = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
_LOCAL, _CONTROL = 3, 6  # positions in what tcgetattr gives


def is_full(environment: Mapping[str, str]) -> bool:
    """Whether there is a terminal on both sides that can be drawn on."""
    dumb = environment.get("TERM", "") in {"", "dumb", "unknown"}
    return not dumb and sys.stdin.isatty() and sys.stdout.isatty()


class Screen:
    """Draws lines and hears keys. `wake` may be called by another thread."""

    def __init__(self, styles: Mapping[str, str]) -> None:
        self._styles = styles
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            found = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return 80, 24
        return found.columns or 80, found.lines or 24

    def draw(self, lines: Sequence[tuple[str, str]]) -> None:
        """Write over what is there, without a flicker."""
        shown = [f"{self._styles.get(style, '')}{text}\x1b[0m\x1b[K" for text, style in lines]
        sys.stdout.write("\x1b[H" + "\r\n".join(shown) + "\x1b[J")
        sys.stdout.flush()

    def keys(self, timeout: float) -> list[str]:
        """What was pressed; nothing when `timeout` seconds have passed or somebody woke us."""
        ready, _, _ = select.select([sys.stdin.fileno(), self._woken], [], [], max(0.0, timeout))
        if self._woken in ready:
            os.read(self._woken, 512)
        if sys.stdin.fileno() not in ready:
            return []
        data = os.read(sys.stdin.fileno(), 64)
        return _KEYS.findall(data.decode(errors="replace")) if data else ["\x04"]

    def wake(self) -> None:
        try:
            os.write(self._waker, b".")
        except OSError:  # full: awake already
            return


@contextmanager
def screen(styles: Mapping[str, str]) -> Iterator[Screen]:
    """The terminal in our hands until the end of the block."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    ours = termios.tcgetattr(fd)
    ours[_LOCAL] &= ~(termios.ICANON | termios.ECHO)
    ours[_CONTROL][termios.VSUSP] = b"\0"  # a stopped program would leave the screen as it is
    made = Screen(styles)

    def resized(_number: int, _frame: FrameType | None) -> None:
        made.wake()

    with handled(endings() | {signal.SIGWINCH: resized}):
        try:
            termios.tcsetattr(fd, termios.TCSADRAIN, ours)
            sys.stdout.write(_ENTER)
            yield made
        finally:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def endings() -> dict[int, Handler]:
    """What would end us with a terminal not put back ends us as Ctrl-C does; what is ignored stays so."""
    ours = (signal.SIGTERM, signal.SIGHUP)
    return {number: _end for number in ours if signal.getsignal(number) is signal.SIG_DFL}


@contextmanager
def handled(handlers: Mapping[int, Handler]) -> Iterator[None]:
    """These signals, until the end of the block."""
    old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
