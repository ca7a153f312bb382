"""`viscript node ls`, `show`, `peers`, `routes`, `sessions`, `streams`, `metrics`: tables of the mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, structs

from bus.identity import fingerprint, short
from nodes import api, seen
from viscript.commands.node.mesh import Mesh
from viscript.commands.node.words import amount, rate, seconds
from viscript.output import age, document, listing, note, say, size, table

if TYPE_CHECKING:
    from collections.abc import Sequence


class NodeRow(Struct):
    """A node as `ls` shows it; `called` is what it calls itself, `name` what it is called here."""

    name: str
    called: str
    key: str
    fingerprint: str
    endpoint: str
    links: list[str]  # keys of neighbours, as both ends say
    claimed: list[str]  # keys of those that do not confirm a link
    since: float
    here: bool  # it runs in this home


def ls() -> None:
    with Mesh() as mesh:
        mesh.must_have_manager()
        rows = node_rows(mesh)
    head = ("NODE", "KEY", "LINKS", "KNOWN FOR", "LISTENS ON", "")
    cells = [
        (
            _called(row), short(row.key), str(len(row.links)), age(row.since),
            row.endpoint or "nothing: it dials", _remarks(row, mesh),
        )
        for row in rows
    ]  # fmt: skip
    listing(rows, head, cells, "No nodes. Start one: viscript start alpha")


def node_rows(mesh: Mesh) -> list[NodeRow]:
    here = set(mesh.here())
    return [
        NodeRow(
            mesh.name(node.key), node.name, node.key, fingerprint(node.key), node.endpoint, node.links,
            node.claimed, node.since, node.key in here,
        )
        for node in mesh.nodes
    ]  # fmt: skip


def _called(row: NodeRow) -> str:
    return row.name if row.name == row.called else f"{row.name} (calls itself {row.called})"


def _remarks(row: NodeRow, mesh: Mesh) -> str:
    said = ["here"] if row.here else []
    if row.claimed:
        said.append(
            f"says it is linked to {', '.join(map(mesh.name, row.claimed))}, which denies it"
        )
    if not row.links:
        said.append("no links")
    return "; ".join(said)


class Shown(Struct):
    """One node in full: as the manager knows it (null without one), and as it says itself."""

    node: NodeRow | None
    status: api.Status
    peers: list[seen.Peer]
    sessions: list[seen.Session]
    counters: dict[str, int]


def show(word: str | None, *, as_json: bool) -> None:
    with Mesh() as mesh:
        key = mesh.at(word)
        row = next((row for row in node_rows(mesh) if row.key == key), None)
        status = mesh.ask(api.STATUS, None, api.Status, to=key)
        peers = mesh.ask(seen.PEERS, None, seen.Peers, to=key).peers
        sessions = mesh.ask(seen.SESSIONS, None, seen.Sessions, to=key).sessions
    if as_json:
        document(Shown(row, status, peers, sessions, status.counters))
        return
    say(
        f"node         {mesh.name(key)}"
        + (f", calls itself {status.name}" if mesh.name(key) != status.name else "")
    )
    say(f"key          {key}")
    say(f"fingerprint  {fingerprint(key)}")
    if row is not None:
        say(f"listens on   {row.endpoint or 'nothing: it dials only'}")
        say(f"registered   for {age(row.since)}")
    else:
        say("registered   at no node manager that is on this bus")
    say(f"links        {', '.join(_link(mesh, peer) for peer in peers) or 'none'}")
    say(f"sessions     {', '.join(mesh.name(x.peer) for x in sessions) or 'none'}")
    say(f"streams      {status.streams}")
    more = " or more" if len(status.relays) >= seen.MAX_ROWS else ""
    say(f"relays       {len(status.relays)}{more} directions of routes")
    say(
        f"counters     {', '.join(f'{name} {n}' for name, n in sorted(status.counters.items())) or 'none'}"
    )


def _link(mesh: Mesh, peer: seen.Peer) -> str:
    name = mesh.name(peer.key) if peer.key else peer.name
    return f"{name} ({seconds(peer.rtt)})" if peer.up else f"{name} (not up)"


def peers(word: str | None) -> None:
    with Mesh() as mesh:
        key = mesh.at(word)
        answer = mesh.ask(seen.PEERS, None, seen.Peers, to=key)
        found = answer.peers
    head = (
        "NEIGHBOUR",
        "STATE",
        "ROUND TRIP",
        "CARRIES",
        "IN",
        "OUT",
        "WAITING",
        "SENT AGAIN",
        "HOW",
        "",
    )
    cells = [
        (
            mesh.name(peer.key) if peer.key else peer.name,
            "up" if peer.up else "down", seconds(peer.rtt), rate(peer.rate), size(peer.bytes_in),
            size(peer.bytes_out), size(peer.queued), f"{peer.retransmits:.1f}/s", _how(peer),
            peer.problem,
        )
        for peer in found
    ]  # fmt: skip
    _of(
        found,
        head,
        cells,
        mesh,
        key,
        "no neighbour; link it: --link NAME, see docs/mesh.md",
        answer.left,
    )


def _how(peer: seen.Peer) -> str:
    if peer.up:
        return f"{'dialled' if peer.dialled else 'dials in'}, {peer.kind}, {age(peer.since or 0)}"
    return f"{peer.kind}, {amount(peer.attempts, 'attempt')} failed"


def routes(word: str | None, *, as_json: bool) -> None:
    """Of one node, as it says itself; without a name all that the manager knows."""
    with Mesh(full=word is None) as mesh:
        if word is None:
            mesh.must_have_manager()
            _all_routes(mesh)
            return
        key = mesh.find(word)
        found = mesh.ask(seen.ROUTES, None, seen.Ways, to=key)
    if as_json:
        document(found)
        return
    if not found.ways and not found.relays:
        say(f"No route ends at {mesh.name(key)} or goes on there.")
    if found.ways:
        head = ("TO", "STATE", "ROUND TRIP", "CAME", "ROUTE", "PATH")
        table(head, [_way(mesh, way) for way in found.ways])
    if found.ways and found.relays:
        say()
    if found.relays:
        head = ("RELAYS FROM", "TO", "FRAMES", "BYTES", "WAITING", "ROUTE")
        table(
            head,
            [
                (
                    mesh.name(x.neighbour), mesh.name(x.onward), str(x.frames), size(x.octets),
                    size(x.kept), x.route,
                )
                for x in found.relays
            ],
        )  # fmt: skip
    _left(found.left)


def _way(mesh: Mesh, way: seen.Way) -> tuple[str, ...]:
    state = "in use" if way.used else "standby" if way.standby else "beside"
    if way.avoided:
        state += f", avoided for {way.avoided:.0f} s"
    path = way.path[::-1] if way.path[:1] == [way.peer] else way.path
    return (
        mesh.name(way.peer), state, seconds(way.rtt), size(way.octets), way.route, mesh.path(path),
    )  # fmt: skip


def _all_routes(mesh: Mesh) -> None:
    found = []
    for route in mesh.routes:
        ends = mesh.name(route.path[0]), mesh.name(route.path[-1])
        turned = route.path[::-1] if ends[1] < ends[0] else route.path
        found.append(structs.replace(route, path=turned))
    found.sort(key=lambda x: (mesh.name(x.path[0]), mesh.name(x.path[-1]), not x.active))
    head = ("FROM", "TO", "STATE", "SINCE", "ROUTE", "PATH")
    cells = [
        (
            mesh.name(x.path[0]), mesh.name(x.path[-1]), "active" if x.active else "standby",
            age(x.since), x.route, mesh.path(x.path),
        )
        for x in found
    ]  # fmt: skip
    none = "No routes: they are laid when somebody wants to send. Try: viscript node ping NODE"
    listing(found, head, cells, none)


def sessions(word: str | None) -> None:
    with Mesh() as mesh:
        key = mesh.at(word)
        answer = mesh.ask(seen.SESSIONS, None, seen.Sessions, to=key)
    head = (
        "WITH", "STATE", "FOR", "ROUND TRIP", "HEARD", "STREAMS", "ON THE WAY", "SENT AGAIN", "SWITCHES",
        "REFUSED", "EPOCH",
    )  # fmt: skip
    cells = [
        (
            mesh.name(x.peer), _state(x), age(x.since), seconds(x.rtt), f"{x.heard:.1f} s ago",
            str(x.streams), f"{size(x.unacknowledged)} of {size(x.window)}", str(x.resent),
            str(x.switches), str(x.bad + x.replayed), str(x.epoch),
        )
        for x in answer.sessions
    ]  # fmt: skip
    _of(answer.sessions, head, cells, mesh, key, "no session", answer.left)


def _state(session: seen.Session) -> str:
    if not session.route:
        return "no way"
    return "up" if session.up else "no keys yet"


def streams(word: str | None, peer: str | None) -> None:
    with Mesh() as mesh:
        key = mesh.at(word)
        page = seen.Page(mesh.find(peer) if peer is not None else "")
        answer = mesh.ask(seen.STREAMS, page, seen.Streams, to=key)
    head = ("WITH", "NUMBER", "PORT", "OPENED", "APP", "STATE", "IN", "OUT", "MAY SEND", "MAY COME")
    cells = [
        (
            mesh.name(x.peer), str(x.number), str(x.port), "here" if x.ours else "there", x.app or "-",
            x.state, size(x.bytes_in), size(x.bytes_out), size(x.may_send), size(x.may_receive),
        )
        for x in answer.streams
    ]  # fmt: skip
    _of(answer.streams, head, cells, mesh, key, "no stream", answer.left)


def metrics(word: str | None, *, as_json: bool) -> None:
    """Prometheus' text, as it is."""
    with Mesh() as mesh:
        text = mesh.raw(seen.METRICS, None, to=mesh.at(word)).decode(errors="replace")
    if as_json:
        document({"text": text})
    else:
        say(text.rstrip())


def _of(
    found: Sequence[object], head: tuple[str, ...], cells: Sequence[tuple[str, ...]], mesh: Mesh, key: str,
    nothing: str, left: int = 0,
) -> None:  # fmt: skip
    """A table of what one node holds; who it is stands on standard error."""
    listing(found, head, cells, f"Node {mesh.name(key)} has {nothing}.")
    _left(left)


def _left(count: int) -> None:
    if count:
        note(f"{count} more are not shown.")
