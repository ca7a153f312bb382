"""The specifications print the golden vectors, byte for byte."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from nodes import api, flows, local, mesh, orders, wire
from nodes.manager import roster
from nodes.manager.metrics import METRICS
from nodes.manager.topology import MAX_NODES

ROOT = Path(__file__).parents[3]
VECTORS = json.loads((ROOT / "tests" / "vectors" / "mesh.json").read_text())


def compact(name: str) -> str:
    """The text of a specification without blanks, so that bytes may be set in groups."""
    return re.sub(r"\s", "", (ROOT / "docs" / "protocol" / name).read_text())


@pytest.mark.parametrize(
    "vector",
    VECTORS["records"] + VECTORS["frames"][1:] + VECTORS["packets"],
    ids=lambda v: v["name"],
)
def test_mesh_prints_the_bytes_of_frames_and_records(vector: dict[str, str]) -> None:
    assert vector["hex"] in compact("mesh.md")


@pytest.mark.parametrize("vector", VECTORS["sealed"], ids=lambda v: v["name"])
def test_mesh_prints_sealed_frames_and_what_is_in_them(vector: dict[str, str]) -> None:
    assert vector["key"] in compact("mesh.md")
    assert vector["record"] in compact("mesh.md")
    # The head stands on a line with a remark.
    assert vector["frame"][:32] in compact("mesh.md")
    assert vector["frame"][32:] in compact("mesh.md")


@pytest.mark.parametrize("name", ["first", "second", "answer"])
def test_mesh_prints_the_bytes_of_data_connections(name: str) -> None:
    assert VECTORS["data_line"][name] in compact("mesh.md")


@pytest.mark.parametrize("vector", VECTORS["local"], ids=lambda v: v["name"])
def test_node_app_prints_the_bytes_of_every_message(vector: dict[str, str]) -> None:
    assert vector["hex"] in compact("node-app.md")


def test_the_codes_are_those_of_the_table() -> None:
    text = (ROOT / "docs" / "protocol" / "mesh.md").read_text()
    table = dict(
        re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", text.split("## 6. Codes")[1], re.MULTILINE)
    )
    assert table == {str(int(code)): code.name for code in wire.Code}


def test_the_limits_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "protocol" / "mesh.md").read_text()
    for number in (flows.MAX_STREAMS, mesh.MAX_LABELS, wire.MAX_FRAME, wire.MAX_DATA):
        assert f"{number:,}" in text
    assert f"{local.MAX_MESSAGE:,}" in (ROOT / "docs" / "protocol" / "node-app.md").read_text()


def test_every_order_every_metric_and_every_limit_of_the_manager_is_specified() -> None:
    text = (ROOT / "docs" / "protocol" / "mesh.md").read_text()
    for order in get_args(orders.Order):
        assert f"`{order.__struct_config__.tag} {{" in text
    for metric in METRICS:
        assert f"| `{metric}` |" in text
    for number in (MAX_NODES, roster.MAX_PAIRS, roster.MAX_PAIRS_OF_ONE):
        assert f"{number:,}" in text
    assert orders.CONTEXT.decode() in text
    for subject in (value for name, value in vars(api).items() if name.isupper()):
        assert not isinstance(subject, str) or f"`{subject}" in text
