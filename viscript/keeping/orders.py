"""What a keeper can be told over its socket: JSON lines, and what it answers.

| order | answer |
|---|---|
| `{"do": "ping"}` | the state |
| `{"do": "stop", "steps": [[signal, seconds], …]}` or `"grace": seconds` | the state; then at every change |
| `{"do": "signal", "signal": n, "group": bool}` | the state |
| `{"do": "write", "data": base64}`: types into the terminal | `{"typed": n}` or `{"refused": why}` |
| `{"do": "attach", "write": bool, "rows": n, "columns": n}` | `{"attached", "writer", "out"}`, or `refused` |
| `{"do": "resize", "rows": n, "columns": n}`, of the writer | the state |

At once and at every change the state is told unasked, to who is attached also `{"out": base64}` as it comes.
What is not understood is answered with the state.
"""

from __future__ import annotations

import base64
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Protocol

    from viscript.keeping.output import Output
    from viscript.keeping.visitors import Visitor

    class Keeper(Protocol):
        """What an order does it by."""

        state: Json
        output: Output

        @property
        def writer(self) -> Visitor | None: ...
        def stop(self, steps: list[tuple[int, float]] | None) -> None: ...
        def signal_leader(self, number: int) -> None: ...
        def signal_all(self, number: int) -> None: ...
        def changed(self) -> None: ...


STEPS = 32
SIDE = 4096  # rows or columns at most

Json = dict[str, Any]


def carry_out(keeper: Keeper, visitor: Visitor, order: Json) -> Json:
    """Empty: the state is the answer. `KeyError`, `ValueError`, `TypeError`: it is no order."""
    match order["do"]:
        case "stop":
            keeper.stop(_steps(order))
        case "signal":
            _signal(keeper, int(order["signal"]), group=bool(order.get("group")))
        case "write":
            return _write(keeper, visitor, base64.b64decode(order["data"], validate=True))
        case "attach":
            return _attach(keeper, visitor, order)
        case "resize" if visitor.writer:
            _resize(keeper, order)
        case _:
            pass
    return {}


def _steps(order: Json) -> list[tuple[int, float]] | None:
    if "steps" in order:
        found = [(int(number), float(wait)) for number, wait in order["steps"][:STEPS]]
        if not all(1 <= number < signal.NSIG and 0 <= wait < 1e6 for number, wait in found):
            raise ValueError
        return found
    return [(signal.SIGTERM, float(order["grace"]))] if "grace" in order else None


def _signal(keeper: Keeper, number: int, *, group: bool) -> None:
    if not 1 <= number < signal.NSIG:
        raise ValueError
    if group:
        keeper.signal_all(number)
    else:
        keeper.signal_leader(number)


def _write(keeper: Keeper, visitor: Visitor, data: bytes) -> Json:
    if visitor.viewer and not visitor.writer:
        return {"refused": "another is typing"}
    problem = keeper.output.type(data)
    return {"refused": problem} if problem else {"typed": len(data)}


def _attach(keeper: Keeper, visitor: Visitor, order: Json) -> Json:
    if keeper.state["master"] is None:
        return {"refused": "it has no terminal"}
    visitor.viewer = True
    visitor.writer = bool(order.get("write", True)) and keeper.writer in (None, visitor)
    if visitor.writer:
        _resize(keeper, order)
        keeper.changed()
    recent = keeper.output.recent()
    return {"attached": True, "writer": visitor.writer, **keeper.output.as_shown(recent)}


def _resize(keeper: Keeper, order: Json) -> None:
    rows, columns = int(order["rows"]), int(order["columns"])
    if 1 <= rows <= SIDE and 1 <= columns <= SIDE:
        keeper.output.resize(rows, columns)
