"""A user with a home folder of their own, and shells in terminals that read what is installed there."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.terminal import Terminal, terminal

SNAPSHOT = {
    "apps": [
        {"name": "web", "help": "Serves pages.", "short": ["w"], "groups": ["front"]},
        {"name": "worker", "help": "Works.", "short": [], "groups": ["back"]},
    ],
    "launches": [
        {"id": 3, "app": "web", "state": "running", "host": "alpha", "groups": ["front"]},
        {"id": 14, "app": "worker", "state": "failed", "host": "beta", "groups": ["back"]},
        {"id": 15, "app": "worker", "state": "running", "host": "beta", "groups": ["back"]},
    ],
    "hosts": ["alpha", "beta"],
    "jobs": [{"id": 7, "text": "sd, working"}],
}
PROMPT = "ready> "


class User:
    """Everything below `folder`; a snapshot of names lies in the usual home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        programs = Path(sys.executable).parent
        self.environment = {
            **kept, "HOME": str(folder), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8",
            "PATH": f"{programs}:{kept['PATH']}",
        }  # fmt: skip
        state = folder / ".local/state/viscript/state"
        state.mkdir(parents=True)
        (state / "completion.json").write_text(json.dumps(SNAPSHOT))

    def viscript(self, *arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "viscript.cli", *arguments]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=50, check=True
        )
        return done.stdout

    @contextmanager
    def shell(self, *command: str, start: Sequence[str] = ()) -> Iterator[Terminal]:
        """A shell at its prompt, after the lines `start`."""
        with terminal(command, self.environment, width=100) as made:
            for line in start:
                made.type(f"{line}\n")
            made.until(lambda text: text.rpartition("\n")[2] == PROMPT.strip())
            yield made


def typed(shell: Terminal, before: str, after: str) -> None:
    """Type, press tab: it becomes `after`. Then the line is thrown away."""
    assert not before.endswith(after), "true before the tab key is pressed"
    shell.type(f"{before}\t")
    shell.until(lambda text: text.rpartition("\n")[2].endswith(after))
    shell.type("\x15")


def listed(shell: Terminal, before: str, *words: str) -> str:
    """Type, press tab twice: all these are shown."""
    shell.type(f"{before}\t\t")
    text = shell.until(lambda text: all(word in text for word in words))
    shell.type("\x03")
    return text
