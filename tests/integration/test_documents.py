"""What the documents say can be typed can be typed; what they link to is there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.support.stack import free_port
from viscript.records import Status

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(document: Path) -> list[str]:
    """The lines behind `$ ` in the document's ```console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", document.read_text(), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_the_document_of_the_command_line_names_every_field_of_a_launch():
    text = (ROOT / "docs" / "cli.md").read_text().partition("**A launch**")[2]
    rows = re.findall(r"^\| (`.*?`) \|", text.partition("**A job**")[0], re.MULTILINE)
    told = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert {field.name for field in msgspec.structs.fields(Status)} <= told


@pytest.mark.parametrize(
    "document", [d for d in DOCUMENTS if commands(d)], ids=lambda d: d.relative_to(ROOT).as_posix()
)
@pytest.mark.timeout(120)
def test_every_command_of_a_document_works_in_its_order(document: Path, tmp_path: Path) -> None:
    shipped = (ROOT / "config" / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(shipped.replace(":1080", f":{free_port()}"))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("VISCRIPT_")},
        "VISCRIPT_HOME": str(tmp_path / "home"),
        "VISCRIPT_CONFIG": str(tmp_path / "config.yaml"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    try:
        for command in commands(document):
            done = run(*shlex.split(command))
            assert done.returncode == 0, (command, done.stdout, done.stderr)
    finally:
        run("viscript", "down")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.relative_to(ROOT).as_posix())
def test_every_relative_link_of_a_document_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", document.read_text())
    missing = [link for link in links if not (document.parent / link).exists()]
    assert missing == []
