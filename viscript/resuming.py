"""What came of the orders that an earlier daemon was carrying out when it was killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viscript.commands import order
from viscript.supervision.states import FINAL

if TYPE_CHECKING:
    from viscript.desk import Act
    from viscript.launcher import Launcher
    from viscript.protocol import Step


def act_of(launcher: Launcher, verb: str, step: Step) -> Act | None:
    """Waiting for its end, where what is on disk proves that it had begun; None where it does not.

    A restart may not have begun, and then looks like one that is over; a signal leaves no trace.
    """
    number = step.id or 0
    record = launcher.records.get(number) or launcher.store.get(number)
    if record is None:
        return None
    if verb == "stop" and (record.stop or record.state in FINAL):
        return lambda step: order.ended(launcher, step, number)
    if verb in {"start", "run"}:  # its launch is written before the job is
        return lambda step: order.settled(launcher, step, number)
    return None
