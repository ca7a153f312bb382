"""The loop of the prompt: read a line, carry it out as the command line would, read the next."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.output.plain_text import PlainTextOutput
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.shortcuts import CompleteStyle

from viscript import completing
from viscript.directories import Directories
from viscript.errors import BadUsage
from viscript.home import Home
from viscript.output import note, say
from viscript.shell import lines
from viscript.shell.history import Lines
from viscript.shell.live import Live, Outlet
from viscript.shell.offering import Known, Offering

INTERRUPTED = 130
Run = Callable[[list[str]], int]  # a command line; its exit code


class Shell:
    """One prompt for the home; `run` carries out what is typed."""

    def __init__(self, home: Home, run: Run) -> None:
        self._home = home
        self._run = run
        self._known = Known(home)
        self._outlet = Outlet()
        dumb = os.environ.get("TERM", "dumb") in {"dumb", "unknown", ""}
        self._plain = dumb or bool(os.environ.get("NO_COLOR"))
        self._session: PromptSession[str] = PromptSession(
            self._prompt(), history=Lines(home.history), completer=Offering(self._known),
            auto_suggest=AutoSuggestFromHistory(), complete_while_typing=False,
            complete_style=CompleteStyle.MULTI_COLUMN, bottom_toolbar=self._toolbar,
            enable_suspend=True, output=PlainTextOutput(sys.stdout) if dumb else None,
        )  # fmt: skip

    def loop(self) -> int:
        """Until the user leaves. What goes wrong in a command ends only that."""
        say(f"viscript at {self._home.root}. Tab completes, help explains, exit leaves.")
        with Live(self._home, self._outlet.put):
            while True:
                try:
                    line = self._read()
                except KeyboardInterrupt:  # the line is thrown away
                    continue
                except EOFError:
                    return 0
                if not self._carry_out(line):
                    return 0

    def _read(self) -> str:
        self._known.look_again()
        with patch_stdout(raw=True):
            self._outlet.open(self._show)
            try:
                return self._session.prompt()
            finally:
                self._outlet.close()

    def _carry_out(self, line: str) -> bool:
        """Whether to go on."""
        try:
            found = lines.words(line)
        except BadUsage as problem:
            note(f"error: {problem}")
            return True
        if found[:1] and found[0] in lines.END:
            return False
        if found:
            self._try(lines.as_typed(found))
        return True

    def _try(self, words: list[str]) -> None:
        try:
            if self._run(words) == INTERRUPTED:
                say()  # the terminal has written ^C
        except KeyboardInterrupt:
            say()
        except Ended:
            raise
        except SystemExit:
            return
        except Exception:  # noqa: BLE001 - a bug in one command, which is said as what it is
            note(f"error: this is a bug of viscript:\n{traceback.format_exc()}")

    def _show(self, line: str) -> None:
        """An event, above the prompt."""
        sys.stdout.write(f"{line}\n" if self._plain else f"\x1b[2m{line}\x1b[0m\n")

    def _prompt(self) -> str:
        usual = str(self._home.root) == Directories(os.environ).state
        return "viscript> " if usual else f"viscript {self._home.root.name}> "

    def _toolbar(self) -> str:
        document: Any = self._session.default_buffer.document
        typed = completing.split(document.text_before_cursor)
        told = lines.hint(typed, self._known.tree)
        counted = lines.summary(self._known.names)
        return f" {told}" + (f"   [{counted}]" if counted else "")


class Ended(SystemExit):
    """By a signal: of the prompt, whatever command is at work."""


def _ended(number: int, _frame: FrameType | None) -> None:
    raise Ended(128 + number)


def start(home: Home, run: Run) -> int:
    """The prompt on this terminal; its exit code. A signal that ends it leaves the terminal as it was."""
    os.environ["VISCRIPT_HOME"] = str(home.root)  # so commands need not be told again
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ended)
    return Shell(home, run).loop()
