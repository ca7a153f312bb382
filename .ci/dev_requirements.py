"""Print a dependency group of pyproject.toml, one a line (pip learnt --group only in 25.1)."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
print("\n".join(project["dependency-groups"][sys.argv[1]]))
