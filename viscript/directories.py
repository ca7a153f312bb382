"""Where a user's files belong on this platform. Little of the standard library only: completion is fast.

Linux follows the XDG base directories, macOS has its own folders. What is said of macOS is untested.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "viscript"


class Directories:
    """Absolute paths of one user on one platform; nothing is made, nothing looked at."""

    def __init__(self, environment: Mapping[str, str], platform: str = sys.platform) -> None:
        self._environment = environment
        self._user = environment.get("HOME") or os.path.expanduser("~")
        self._apple = platform == "darwin"

    @property
    def config(self) -> str:
        """What the user writes or chooses."""
        return os.path.join(self._of("XDG_CONFIG_HOME", ".config"), NAME)

    @property
    def state(self) -> str:
        """The usual home of an instance."""
        return os.path.join(self._of("XDG_STATE_HOME", ".local/state"), NAME)

    @property
    def cache(self) -> str:
        """What can be made again at any time."""
        if self._apple:
            return os.path.join(self._user, "Library/Caches", NAME)
        return os.path.join(self._of("XDG_CACHE_HOME", ".cache"), NAME)

    def completion(self, shell: str) -> str:
        """The file in which `shell` has its completion script; those of shells are alike on all platforms."""
        match shell:
            case "bash":
                named = self._environment.get("BASH_COMPLETION_USER_DIR")
                folder = named or self._xdg("XDG_DATA_HOME", ".local/share") + "/bash-completion"
                return f"{folder}/completions/{NAME}"
            case "fish":
                return f"{self._xdg('XDG_CONFIG_HOME', '.config')}/fish/completions/{NAME}.fish"
            case _:
                return f"{self._xdg('XDG_DATA_HOME', '.local/share')}/{NAME}/_{NAME}"

    def start_file(self, shell: str) -> str:
        """What `shell` reads when it starts for somebody to type."""
        match shell:
            case "zsh":
                return os.path.join(self._environment.get("ZDOTDIR") or self._user, ".zshrc")
            case "fish":
                return f"{self._xdg('XDG_CONFIG_HOME', '.config')}/fish/config.fish"
            case _:
                return os.path.join(self._user, ".bashrc")

    def _of(self, variable: str, usual: str) -> str:
        if self._apple:
            return os.path.join(self._user, "Library/Application Support")
        return self._xdg(variable, usual)

    def _xdg(self, variable: str, usual: str) -> str:
        """A relative path in the variable counts as none, as the standard says."""
        named = self._environment.get(variable, "").strip()
        return named if named.startswith("/") else os.path.join(self._user, usual)


def home(option: str | None, environment: Mapping[str, str]) -> str:
    """The home that is meant: `--home`, else VISCRIPT_HOME, else the user's state folder."""
    named = option or environment.get("VISCRIPT_HOME")
    if not named:
        return Directories(environment).state
    return os.path.abspath(os.path.expanduser(named))
