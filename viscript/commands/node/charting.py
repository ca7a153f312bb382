"""`viscript node map`: the mesh as a graph, as text or as an SVG file."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec import Struct

from nodes import api
from viscript.commands.node import drawing
from viscript.commands.node.looking import NodeRow, node_rows
from viscript.commands.node.mesh import Mesh
from viscript.commands.node.words import amount, rate, seconds
from viscript.errors import Conflict
from viscript.output import document, say

if TYPE_CHECKING:
    from pathlib import Path


class Graph(Struct):
    nodes: list[NodeRow]
    links: list[api.EdgeInfo]
    routes: list[api.RouteInfo]


def show(file: Path | None, *, replace: bool, as_json: bool) -> None:
    with Mesh(full=True) as mesh:
        mesh.must_have_manager()
        rows = node_rows(mesh)
    names = {row.key: row.name for row in rows}
    edges = _edges(mesh, rows)
    if file is not None:
        here = frozenset(row.key for row in rows if row.here)
        links = amount(len(edges), "link")
        _write(
            file,
            drawing.svg(names, here, edges, f"Mesh of {amount(len(rows), 'node')}, {links}"),
            replace=replace,
        )
    if as_json:
        document(Graph(rows, mesh.edges, mesh.routes))
    elif file is not None:
        say(f"{file}: {amount(len(rows), 'node')}, {amount(len(edges), 'link')}")
    else:
        for line in drawing.text(names, edges) or ["No nodes. Start one: viscript start alpha"]:
            say(line)


def _edges(mesh: Mesh, rows: list[NodeRow]) -> list[drawing.Edge]:
    used: dict[frozenset[str], int] = {}
    for route in mesh.routes:
        if route.active:
            for pair in pairwise(route.path):
                used[frozenset(pair)] = used.get(frozenset(pair), 0) + 1
    confirmed = [
        drawing.Edge(
            x.a,
            x.b,
            _label(x, used.get(frozenset((x.a, x.b)), 0)),
            used=used.get(frozenset((x.a, x.b)), 0),
        )
        for x in mesh.edges
    ]
    claimed = [
        drawing.Edge(row.key, other, "only one end says so", dashed=True)
        for row in rows
        for other in row.claimed
    ]
    return [*confirmed, *claimed]


def _label(edge: api.EdgeInfo, routes: int) -> str:
    said = [seconds(edge.rtt)]
    if edge.rate is not None:
        said.append(rate(edge.rate))
    if edge.load >= 0.01:
        said.append(f"{edge.load:.0%} busy")
    if routes:
        said.append(amount(routes, "route"))
    return ", ".join(said)


def _write(file: Path, text: str, *, replace: bool) -> None:
    try:
        with file.open("w" if replace else "x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError:
        raise Conflict(f"{file}: is there already; write over it: --force") from None
