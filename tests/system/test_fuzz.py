"""Coverage-guided fuzzing of the frame decoder and the broker's core, for a bounded time.

The kept corpus is tests/fuzz/corpus: an input a line, in hex. What a longer run finds may be added to it.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests/fuzz/corpus"
SECONDS = 20
# Breaks what the target guards, then runs it: what the fuzzer must find.
PLANTED = """
import runpy, sys
from bus import wire
decode = wire.Decoder.decode
def broken(self, head):
    if head[4:6] == b"\\x81\\xa1":
        raise ValueError("planted")
    return decode(self, head)
wire.Decoder.decode = broken
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def fuzz(*command: str, found: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command, f"-max_total_time={SECONDS}", "-max_len=4200", "-timeout=10",
         "-rss_limit_mb=1024", f"-artifact_prefix={found}/", str(found)],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS * 6, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("target", "runs"), [("heads", 5000), ("core", 500)])
@pytest.mark.timeout(200)
def test_nothing_new_is_found_in_a_bounded_run(target: str, runs: int, tmp_path: Path) -> None:
    (corpus := tmp_path / "corpus").mkdir()
    kept = (CORPUS / f"{target}.txt").read_text().split()
    for number, line in enumerate(kept):
        (corpus / f"{number}").write_bytes(bytes.fromhex(line))
    done = fuzz("-m", f"tests.fuzz.{target}", found=corpus)
    assert done.returncode == 0, done.stderr[-4000:]
    counted = re.search(r"Done (\d+) runs", done.stderr)
    assert counted is not None
    assert int(counted[1]) > runs
    assert f"seed corpus: files: {len(kept)} " in done.stderr


@pytest.mark.timeout(200)
def test_a_planted_fault_is_found(tmp_path: Path) -> None:
    done = fuzz("-c", PLANTED, "tests.fuzz.heads", found=tmp_path)
    assert done.returncode != 0
    assert "planted" in done.stderr + done.stdout
    assert list(tmp_path.glob("crash-*")) != []
