"""What the completion scripts of bash, zsh and fish run: `python -I -S completing.py SHELL WORDS...`.

Answers from files alone, in a few hundredths of a second: it dials nothing, imports next to nothing. Only
names below `viscript bus` that no file has are asked of the broker, by the command line itself.
A line for each offer; for zsh and fish a tab and what it is. `:files` and `:folders` leave it to the shell.

A tree of commands that is missing is made from the registry, which knows no options; both that and one of
another version are a reason to have it made anew, in the background.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from viscript.completion.offers import Offer

PATIENCE = 2.0  # seconds for a broker's answer
_SPACES = frozenset(" \t\n")


def split(line: str) -> list[str]:
    """The words of a bash line up to the cursor, without quotes; the last may be unfinished or empty."""
    words, word, quote, escaped, begun = list[str](), "", "", False, False
    for char in line:
        if escaped:
            word, escaped = word + char, False
        elif char == "\\" and quote != "'":
            escaped = begun = True
        elif quote:
            quote, word = ("", word) if char == quote else (quote, word + char)
        elif char in "'\"":
            quote, begun = char, True
        elif char in _SPACES:
            if begun:
                words.append(word)
            word, begun = "", False
        else:
            word, begun = word + char, True
    return [*words, word]


def for_bash(found: Sequence[Offer], current: str, breaks: str) -> list[str]:
    """Bash ends words at `:` and `=`, too, and wants only what comes after the last; with `@` one begins."""
    starts = [current.rfind(char) + (char != "@") for char in breaks if char in ":=@"]
    at = max(0, *starts) if starts else 0
    return [word if word.startswith(":") else word[at:] for word, _ in found]


def home_in(words: Sequence[str]) -> str | None:
    """What `--home` is told in them; the first counts, what follows an app's name may be the app's own."""
    for index, word in enumerate(words[:-1]):
        if word == "--home":
            return words[index + 1]
        if word.startswith("--home="):
            return word.removeprefix("--home=")
    return None


def refresh() -> None:
    """Have the tree of commands made anew, without waiting for it."""
    import subprocess

    subprocess.Popen(
        [sys.executable, "-P", "-m", "viscript.surface.tree"], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def from_broker(words: Sequence[str]) -> list[Offer]:
    """Names of topics, consumers, services, sessions, for the last of the words after `viscript`."""
    import shlex
    import subprocess

    environment = os.environ | {
        "_VISCRIPT_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": shlex.join(["viscript", *words]),
    }  # fmt: skip
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "viscript.cli"], env=environment, capture_output=True,
            stdin=subprocess.DEVNULL, text=True, errors="replace", timeout=PATIENCE, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line.partition("\t") for line in done.stdout.splitlines()]
    return [(word, text) for word, _, text in lines]


def answer(shell: str, given: Sequence[str]) -> list[str]:
    """The lines to print. `given`: of bash its line up to the cursor and COMP_WORDBREAKS, else the words."""
    from viscript import directories
    from viscript.completion import offers, stored

    words = split(given[0])[1:] if shell == "bash" else list(given)
    tree, current = stored.tree(os.environ)
    if not current:
        refresh()
    if tree is None:
        from viscript.surface import registry

        tree = registry.tree()
    home = directories.home(home_in(words), os.environ)
    found = offers.offers(words, tree, stored.snapshot(home, os.environ))
    if not found and "bus" in words[:3] and len(words) > 2:
        found = offers.fitting(from_broker(words), words[-1])
    if shell == "bash":
        return for_bash(found, words[-1] if words else "", given[1] if len(given) > 1 else "")
    return [f"{word}\t{text}" if text else word for word, text in found]


def main(arguments: Sequence[str]) -> int:
    if len(arguments) < 2:
        print("usage: completing.py bash|zsh|fish WORDS...", file=sys.stderr)  # noqa: T201
        return 2
    lines = answer(arguments[0], arguments[1:])
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


if __name__ == "__main__":
    # Run by its path and isolated, so that neither PYTHONPATH nor the current folder has a say.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.exit(main(sys.argv[1:]))
