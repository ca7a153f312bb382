"""Asking the exits that are on the bus, of whatever kind, what they tell of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import msgspec

from viscript.errors import Failed, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator


class AnyExit(Protocol):
    node: str
    key: str


_E = TypeVar("_E", bound=AnyExit)


class Kind(NamedTuple):
    """How exits of one kind are found and asked."""

    stats: str  # the request, to an exit's key
    served: str  # what every one serves, by which it is found
    app: str  # that starts one


def ask(kind: Kind, node: str | None, answer: type[_E]) -> list[_E]:
    """All that answer, at `node` (its name or key) if that is named; one that does not is told of."""
    return [exit_ for exit_ in _answers(kind, answer) if node in {None, exit_.node, exit_.key}]


def none_is_there(kind: Kind, node: str | None) -> NotFound:
    where = "on the bus" if node is None else f"at node {node!r}"
    return NotFound(f"no exit is {where}; start one: viscript start {kind.app}")


def _answers(kind: Kind, answer: type[_E]) -> Iterator[_E]:
    from bus.caller import Caller
    from bus.errors import BusError
    from bus.signals import SERVICES, Services
    from viscript.commands.bus.connection import NAME, TIMEOUT, as_shown, ask_all, translated
    from viscript.commands.bus.where import here
    from viscript.output import warn

    place = here()
    services = ask_all(SERVICES, Services).services
    keys = {each.key for each in services if each.subject == kind.served}
    with (
        translated(place),
        Caller(place.address, place.keypair(), name=NAME, timeout=TIMEOUT) as caller,
    ):
        for key in sorted(keys):
            try:
                yield _read(caller.request(kind.stats, to=key, timeout=TIMEOUT), answer)
            except BusError as error:
                warn(f"the exit {key} tells nothing: {as_shown(error, place)}")


def _read(body: bytes, answer: type[_E]) -> _E:
    try:
        return msgspec.msgpack.decode(body, type=answer)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Failed(f"an exit answers what is not understood: {error}") from None
