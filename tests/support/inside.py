"""A home whose commands are typed in a network namespace: a machine of its own."""

import subprocess
import sys
from pathlib import Path

from tests.support.instance import Instance


class Inside(Instance):
    """Its commands run in a namespace."""

    def __init__(self, root: Path, space: str) -> None:
        super().__init__(root)
        self.space = space

    def run(self, *arguments: str, code: int | None = 0, **more) -> subprocess.CompletedProcess:
        done = subprocess.run(
            ["ip", "netns", "exec", self.space, sys.executable, "-P", "-m", "viscript.cli", *arguments],
            env=self.environment, capture_output=True, text=True, timeout=55, check=False, **more,
        )  # fmt: skip
        assert code is None or done.returncode == code, (arguments, done, self.daemon_log())
        return done

    def rules(self) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.space, "sh", "-c", "nft list ruleset; ip rule; ip -6 rule"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout
