"""Plays all checks, one after the other, each with connections of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bus.conformance.asking import ASKING
from bus.conformance.batching import BATCHING
from bus.conformance.bundling import BUNDLING
from bus.conformance.checks import Check
from bus.conformance.enrolling import ENROLLING
from bus.conformance.flowing import FLOWING
from bus.conformance.heads import HEADS
from bus.conformance.publishing import PUBLISHING
from bus.conformance.results import FAILED, PASSED, SKIPPED, Result, Skipped, Unexpected
from bus.conformance.sessions import SESSIONS
from bus.conformance.stopping import stopping
from bus.conformance.storing import STORING
from bus.conformance.table import Table
from bus.errors import BusError
from bus.identity import Address, KeyPair

CHECKS: tuple[Check, ...] = (
    *SESSIONS, *ENROLLING, *BUNDLING, *PUBLISHING, *FLOWING, *ASKING, *BATCHING, *STORING, *HEADS,
)  # fmt: skip


def run(
    address: Address,
    pair: KeyPair,
    other: KeyPair,
    *,
    patience: float = 5.0,
    only: str = "",
    stop: Callable[[], None] | None = None,
    progress: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Play the checks whose name contains `only` against the broker at `address`.

    `pair` and `other` are two keys that it admits, at best with the roles admin and operator: what their
    roles do not allow is skipped. `patience` is how many seconds an answer may take. `progress` hears each
    result as it comes. With `stop`, which tells the broker to stop and returns, that is played last.
    """
    results = []
    for check in (*CHECKS, stopping(stop)) if stop is not None else CHECKS:
        if only.casefold() in check.name.casefold():
            result = _play(check, Table(address, pair, other, patience))
            results.append(result)
            if progress is not None:
                progress(result)
    return results


def exit_code(results: Iterable[Result]) -> int:
    """0 when none failed and at least one passed, else 1."""
    outcomes = {result.outcome for result in results}
    return 0 if FAILED not in outcomes and PASSED in outcomes else 1


def _play(check: Check, table: Table) -> Result:
    with table:
        try:
            check.play(table)
        except Skipped as reason:
            return Result(check.name, SKIPPED, table.sent, "", str(reason))
        except Unexpected as error:
            return Result(check.name, FAILED, table.sent, error.expected, error.came)
        except BusError as error:
            return Result(check.name, FAILED, table.sent, "a connection", str(error))
        except (KeyError, TypeError, ValueError) as error:
            # The broker's answer lacks what the check goes on with.
            came = f"{type(error).__name__}: {error}"
            return Result(check.name, FAILED, table.sent, "an answer of the documented form", came)
        return Result(check.name, PASSED, table.sent)
