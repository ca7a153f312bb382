"""`viscript completion`: the script of a shell, printed or put in its place."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from viscript import home as package
from viscript.completion import script as scripts
from viscript.directories import Directories
from viscript.errors import BadUsage, Denied
from viscript.output import document, note, say
from viscript.words import did_you_mean

BASH_COMPLETION = (
    "/usr/share/bash-completion/bash_completion", "/etc/bash_completion",
    "/usr/local/share/bash-completion/bash_completion",
    "/opt/homebrew/share/bash-completion/bash_completion",
)  # fmt: skip


def script(shell: str) -> str:
    """The script with this Python and this viscript in it."""
    program = Path(package.__file__).resolve().with_name("completing.py")
    return scripts.script(shell, sys.executable, str(program))


def show(shell: str, problem: str | None) -> None:
    """Print the script. `problem`: why the options of commands could not be written down."""
    _warn(problem)
    print(script(shell), end="")


def install(shell: str | None, problem: str | None, *, as_json: bool) -> None:
    """Put the script where the shell finds it, and say from when on it works."""
    name = _shell(shell)
    places = Directories(os.environ)
    file, start = Path(places.completion(name)), Path(places.start_file(name))
    needs_start = name == "zsh" or (name == "bash" and not _finds_itself())
    _put(file, script(name))
    if needs_start:
        _put(start, scripts.with_block(_text(start), str(file)))
    if as_json:
        changed = [str(file), *([str(start)] if needs_start else [])]
        document({"shell": name, "files": changed, "options": problem is None})
        return
    say(f"{file}: written")
    if needs_start:
        say(f"{start}: reads it from now on")
    _warn(problem)
    say(f"It works in the next {name} that is started.")


def installed(shell: str) -> bool | None:
    """Whether the script in its place is ours as of now; None: there is none."""
    found = _text(Path(place(shell)))
    return found == script(shell) if found else None


def _warn(problem: str | None) -> None:
    if problem is not None:
        note(f"warning: options are not completed: {problem}")


def place(shell: str) -> str:
    """Where its script belongs."""
    return Directories(os.environ).completion(shell)


def _shell(named: str | None) -> str:
    name = named or Path(os.environ.get("SHELL", "")).name
    if name in scripts.SHELLS:
        return name
    known = ", ".join(scripts.SHELLS)
    if named is None:
        raise BadUsage(f"which shell is yours is not known ($SHELL); name it, one of: {known}")
    raise BadUsage(
        f"no completion for {name!r}, only for {known}{did_you_mean(name, scripts.SHELLS)}"
    )


def _finds_itself() -> bool:
    """Whether bash-completion is there, which reads scripts from their folder."""
    return any(Path(path).exists() for path in BASH_COMPLETION)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Denied(f"{path}: cannot be read: {error.strerror}") from None


def _put(path: Path, text: str) -> None:
    """Write a file of the user's, where links lead; its mode stays."""
    real = path.resolve()
    temporary = real.with_name(f".{real.name}.viscript")
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        mode = real.stat().st_mode if real.exists() else 0o644
        temporary.write_text(text, errors="surrogateescape")
        temporary.chmod(mode & 0o777)
        temporary.replace(real)
    except OSError as error:
        raise Denied(
            f"{path}: cannot be written: {error.strerror}; or use: viscript completion SHELL"
        ) from None
