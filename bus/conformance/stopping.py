"""A broker that is told to stop (section 4): played last, and only if somebody can tell it."""

from __future__ import annotations

from collections.abc import Callable

from bus.conformance.asking import serving
from bus.conformance.checks import Check
from bus.conformance.results import Unexpected
from bus.conformance.table import Table


def stopping(stop: Callable[[], None]) -> Check:
    """`stop` tells the broker to stop and returns at once."""

    def play(table: Table) -> None:
        asker, worker = table.joins("notices"), table.other_joins("notices")
        deaf = table.joins()
        serving(worker, table.place)
        asker.says("REQUEST", b"begun", id=6, s=table.place, dl=60_000)
        handle = worker.hears("REQUEST-DELIVERY", b"begun").fields["r"]
        stop()
        for peer in (asker, worker):
            notice = peer.hears("NOTICE")
            if not notice.fields["drain"] > 0:
                raise Unexpected("a drain of more than 0 ms", str(notice))
        asker.says("SUBSCRIBE", id=7, sid=7, s=table.place)
        asker.hears("ERROR", num=503, err="draining", ref=7)
        asker.says("REQUEST", b"", id=8, s=table.place, dl=5000)
        asker.hears("ERROR", num=503, err="draining", ref=8)
        late = table.dials()
        late.says("HELLO")
        late.hears("ERROR", num=503, err="draining")
        worker.says("REPLY", b"done", r=handle)
        asker.hears("REPLY-DELIVERY", b"done", ref=6, from_=worker.key)
        for peer in (asker, worker, deaf):  # who has not the capability hears no NOTICE
            peer.hears("GOODBYE", num=503)
        for peer in (asker, worker, deaf):
            peer.is_cut()

    name = (
        "a broker that stops says NOTICE, begins nothing, lets what is begun end, and says GOODBYE"
    )
    return Check(name, play)
