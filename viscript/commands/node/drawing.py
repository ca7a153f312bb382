"""The mesh as a picture, as text and as SVG: the same mesh gives the same picture. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from math import cos, hypot, pi, sin
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROUNDS: Final = 300
MOST_MOVED: Final = 400  # nodes; of more the circle they begin on is the picture
SPACE: Final = 160.0  # between two that are linked
MARGIN: Final = 90.0
SIZE: Final = 16.0  # radius of a node

Place = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Edge:
    a: str
    b: str
    label: str
    dashed: bool = False  # only one end says so
    used: int = 0  # routes that go over it


def places(nodes: Sequence[str], edges: Sequence[Edge]) -> dict[str, Place]:
    """Where each node stands: linked ones near each other (Fruchterman and Reingold 1991)."""
    count = len(nodes)
    around = SPACE * max(1.0, count / (2 * pi)) if count > 1 else 0.0
    at = {
        node: (around * cos(2 * pi * i / count), around * sin(2 * pi * i / count))
        for i, node in enumerate(nodes)
    }
    if not 2 < count <= MOST_MOVED:
        return at
    linked = [(edge.a, edge.b) for edge in edges if edge.a in at and edge.b in at]
    rounds = max(20, min(ROUNDS, 4_000_000 // (count * count)))
    for number in range(rounds):
        step = SPACE * (1 - number / rounds)
        at = _moved(at, linked, step)
    return at


def _moved(
    at: Mapping[str, Place], linked: Sequence[tuple[str, str]], step: float
) -> dict[str, Place]:
    pull = {node: [0.0, 0.0] for node in at}
    items = list(at.items())
    for i, (node, (x, y)) in enumerate(items):
        for other, (ox, oy) in items[i + 1 :]:
            dx, dy = x - ox, y - oy
            square = max(dx * dx + dy * dy, 1.0)
            force = SPACE * SPACE / square
            pull[node][0] += dx * force
            pull[node][1] += dy * force
            pull[other][0] -= dx * force
            pull[other][1] -= dy * force
    for a, b in linked:
        dx, dy = at[a][0] - at[b][0], at[a][1] - at[b][1]
        force = hypot(dx, dy) / SPACE
        pull[a][0] -= dx * force
        pull[a][1] -= dy * force
        pull[b][0] += dx * force
        pull[b][1] += dy * force
    moved = {}
    for node, (x, y) in items:
        px, py = pull[node]
        length = max(hypot(px, py), 1e-9)
        most = min(length, step) / length
        moved[node] = (x + px * most, y + py * most)
    return moved


_STYLE: Final = """\
  .bg { fill: #ffffff } .node { fill: #2b6cb0; stroke: #1a365d; stroke-width: 1.5 }
  .here { fill: #2f855a; stroke: #1c4532 }
  .edge { stroke: #718096; stroke-width: 2 } .used { stroke: #dd6b20; stroke-width: 3.5 }
  .claim { stroke-dasharray: 5 5 }
  text { font: 13px sans-serif; fill: #1a202c; text-anchor: middle; paint-order: stroke;
         stroke: #ffffff; stroke-width: 3px } .label { font-size: 10.5px; fill: #4a5568 }
  @media (prefers-color-scheme: dark) { .bg { fill: #1a202c }
    text { fill: #edf2f7; stroke: #1a202c } .label { fill: #cbd5e0 } }
"""


def svg(names: Mapping[str, str], here: frozenset[str], edges: Sequence[Edge], title: str) -> str:
    """The picture; `names` by key. Names are of others: everything is escaped."""
    at = places(sorted(names, key=lambda key: (names[key], key)), edges)
    xs, ys = [x for x, _ in at.values()] or [0.0], [y for _, y in at.values()] or [0.0]
    left, top = min(xs) - MARGIN, min(ys) - MARGIN
    width, height = max(xs) - left + MARGIN, max(ys) - top + MARGIN
    box = f"{left:.0f} {top:.0f} {width:.0f} {height:.0f}"
    shape = f'width="{width:.0f}" height="{height:.0f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" role="img" {shape}>',
        f"<title>{_text(title)}</title>",
        f"<style>\n{_STYLE}</style>",
        f'<rect class="bg" x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height:.0f}"/>',
    ]
    for edge in edges:
        if edge.a in at and edge.b in at:
            lines += _line(edge, at[edge.a], at[edge.b])
    for key, (x, y) in at.items():
        kind = "node here" if key in here else "node"
        lines.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{SIZE:.0f}">'
            f"<title>{_text(key)}</title></circle>"
        )
        lines.append(f'<text x="{x:.1f}" y="{y + SIZE + 16:.1f}">{_text(names[key])}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _line(edge: Edge, one: Place, other: Place) -> list[str]:
    (x, y), (ox, oy) = one, other
    kind = "edge" + (" used" if edge.used else "") + (" claim" if edge.dashed else "")
    middle = f'x="{(x + ox) / 2:.1f}" y="{(y + oy) / 2:.1f}"'
    return [
        f'<line class="{kind}" x1="{x:.1f}" y1="{y:.1f}" x2="{ox:.1f}" y2="{oy:.1f}"/>',
        f'<text class="label" {middle}>{_text(edge.label)}</text>',
    ]


def _text(text: str) -> str:
    return escape("".join(c if c.isprintable() else "?" for c in text))


def text(names: Mapping[str, str], edges: Sequence[Edge]) -> list[str]:
    """A tree of lines: every node, and below it its links; each link stands once below each end."""
    near: dict[str, list[tuple[str, Edge]]] = {key: [] for key in names}
    for edge in edges:
        for one, other in ((edge.a, edge.b), (edge.b, edge.a)):
            if one in near:
                near[one].append((other, edge))
    lines = []
    for key in sorted(names, key=lambda key: (names[key], key)):
        lines.append(names[key])
        links = sorted(near[key], key=lambda found: names.get(found[0], found[0]))
        for number, (other, edge) in enumerate(links, 1):
            corner = "└" if number == len(links) else "├"
            dash = "╌" if edge.dashed else "━" if edge.used else "─"
            name = names.get(other, other[:8] + "…")
            lines.append(f"  {corner}{dash}{dash} {name:20}  {edge.label}".rstrip())
    return lines
