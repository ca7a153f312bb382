import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.mark.timeout(300)
def test_the_demo_tells_its_story_to_the_end(tmp_path: Path):
    result = subprocess.run(
        [sys.executable, "-P", str(DEMO)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "FAIL" not in result.stdout
    assert "All of it worked" in result.stdout
