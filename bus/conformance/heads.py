"""The golden vectors, sent as they are."""

from __future__ import annotations

from typing import Any

from bus.conformance.checks import Check, Checks
from bus.conformance.results import Unexpected
from bus.conformance.table import Table
from bus.conformance.vectors import load

HEADS = Checks()


def _refused(vector: dict[str, Any]) -> Check:
    def play(table: Table) -> None:
        peer, bystander = table.joins(), table.other_joins()
        peer.sends(bytes.fromhex(vector["head"]))
        num = peer.hears("ERROR", err=vector["err"]).fields["num"]
        peer.hears("GOODBYE", num=num)
        peer.is_cut()
        bystander.hears_no_more()

    return Check(f"vector refused and cut: {vector['why']}", play)


def _accepted(vector: dict[str, Any]) -> Check:
    def play(table: Table) -> None:
        peer = table.joins()
        peer.sends(bytes.fromhex(vector["head"]))
        if vector["name"] == "PING":
            peer.hears("PONG", **vector["fields"])
        elif "id" in vector["fields"]:
            peer.hears(ref=vector["fields"]["id"])
        number = table.number()
        peer.says("PING", t=number)
        heard = peer.hears()
        while heard.name == "ERROR" and heard.fields.get("err") != "bad_frame":
            heard = peer.hears()  # understood, and refused for another reason: by the rights
        if heard.name != "PONG" or heard.fields.get("t") != number:
            raise Unexpected("the session goes on", str(heard))

    return Check(f"vector accepted: {vector['why']}", play)


def _understood(vector: dict[str, Any]) -> Check:
    def play(table: Table) -> None:
        frames = [bytes.fromhex(vector["head"])]
        if "body" in vector:
            frames.append(bytes.fromhex(vector["body"]))
        match vector["name"].split()[0]:
            case "HELLO":
                peer = table.dials()
                peer.sends(*frames)
                heard = peer.hears()
                if heard.name != "WELCOME" and heard.fields.get("err") != "denied":
                    raise Unexpected("WELCOME", str(heard))
            case "BYE":
                peer = table.joins()
                peer.sends(*frames)
                peer.hears("GOODBYE", num=0, reason=vector["fields"]["reason"])
                peer.is_cut()
            case _:
                _answered(table, vector, frames)

    return Check(f"vector understood: {vector['name']}", play)


def _answered(table: Table, vector: dict[str, Any], frames: list[bytes]) -> None:
    """The command is carried out or refused by name, and the session goes on."""
    peer, number = table.joins(), table.number()
    peer.sends(*frames)
    sent = table.sent
    peer.says("PING", t=number)
    table.sent = sent
    ref, pong = vector["fields"].get("id"), False
    while not pong or ref is not None:
        heard = peer.hears()
        if heard.name == "GOODBYE" or heard.fields.get("err") in {"bad_frame", "version"}:
            raise Unexpected("the command is understood", str(heard))
        pong = pong or (heard.name == "PONG" and heard.fields.get("t") in {number, 1700000000000})
        if heard.name != "PONG" and heard.fields.get("ref") == ref:
            ref = None


HEADS += [_refused(v) for v in load()["refused"]]
HEADS += [_accepted(v) for v in load()["accepted"]]
HEADS += [_understood(v) for v in load()["commands"] if v["direction"] == "client"]
