"""What a link costs, by metric. To add one, add its line to METRICS and its name to api.Policy.

A cost is positive and adds up along a path. `widest` is two rules: the path's narrowest link decides,
by powers of two, so that measurements may shake; among equally wide paths it is the fastest.
"""

from __future__ import annotations

from collections.abc import Callable
from math import frexp
from typing import Final

from nodes.manager.topology import Edge

_TIE: Final = 0.001  # delays are below 20 s a link, so they decide between equally long paths only


def _fastest(edge: Edge) -> float:
    return edge.delay


def _shortest(edge: Edge) -> float:
    return 1.0 + edge.delay * _TIE


def _widest(edge: Edge) -> float:
    return edge.delay * (1.0 + edge.load)


METRICS: Final[dict[str, Callable[[Edge], float]]] = {
    "fastest": _fastest,
    "shortest": _shortest,
    "widest": _widest,
}


def width(edge: Edge) -> int:
    """How wide a link is, in powers of two of bytes/s; 0 when that was not measured."""
    return max(0, frexp(edge.rate)[1]) if edge.rate else 0
