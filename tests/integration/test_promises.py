"""Every promise and every threat that is said to be stopped names a test, and the test is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMISES = ROOT / "docs/protocol/promises.md"
THREATS = ROOT / "docs/threats.md"
LINK = re.compile(r"\[`(\w+)`\]\(([^)]+)\)")


def rows(document: Path) -> list[str]:
    """The rows of tables whose last column is "shown by"."""
    found, shown = [], False
    for line in document.read_text().splitlines():
        if not line.startswith("|"):
            shown = False
        elif line.endswith("| shown by |"):
            shown = True
        elif shown and not line.startswith("|---"):
            found.append(line)
    return found


def names_in(file: Path) -> set[str]:
    """Functions, and the test cases that a state machine of Hypothesis is assigned to."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return {name for name in found if name.lower().startswith("test")}


@pytest.mark.parametrize("document", [PROMISES, THREATS], ids=lambda d: d.name)
def test_every_row_names_a_test_that_is_there(document: Path) -> None:
    assert len(rows(document)) > 10
    for row in rows(document):
        links = LINK.findall(row.rsplit(" | ", 1)[1])
        assert links, row
        for name, path in links:
            file = (document.parent / path).resolve()
            assert file.is_relative_to(ROOT / "tests"), path
            assert name in names_in(file), (name, path)
