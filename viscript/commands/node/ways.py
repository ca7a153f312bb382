"""`viscript node why` and `viscript node route …`: why traffic goes as it goes, and saying how it shall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast, get_args

from nodes import api
from viscript.commands.node.mesh import Mesh
from viscript.commands.node.words import seconds
from viscript.errors import BadUsage
from viscript.output import document, listing, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viscript.commands.node.mesh import T

Metric = Literal["fastest", "shortest", "widest"]
METRICS = get_args(Metric)
PATIENCE = 12.0  # s: nodes on the way carry their orders out


def why(word: str, at: str | None, *, as_json: bool) -> None:
    with Mesh() as mesh:
        key = mesh.find(word)
        asked = mesh.at(at, other=key)
        found = mesh.ask(api.WHY, api.Pair(asked, key), api.Why)
    if as_json:
        document(found)
        return
    say(f"between {mesh.name(asked)} and {mesh.name(key)}: {policy_text(mesh, found)}")
    if found.problem:
        say(f"problem: {found.problem}")
    unit = "hops" if found.policy.metric == "shortest" else "s"
    for way in found.ways:
        cost = f"{way.cost:.3f} hops" if unit == "hops" else seconds(way.cost)
        say(f"  {mesh.path(way.path, begin=asked)}")
        say(f"      {way.verdict}; costs {cost if way.cost < 1e9 else 'more than any allowed way'}")
    if not found.ways:
        say("No way was looked for. Have one laid: viscript node ping NODE")


def policy_text(mesh: Mesh, found: api.Why) -> str:
    if found.by_hand:
        return "a route laid by hand; give it up: viscript node route free"
    return _policy_text(mesh, found.policy)


def _policy_text(mesh: Mesh, policy: api.Policy) -> str:
    said = [f"the {policy.metric} way"]
    if policy.min_hops > 1:
        said.append(f"of at least {policy.min_hops} links")
    if policy.max_hops < api.MAX_PATH - 1:
        said.append(f"of at most {policy.max_hops} links")
    for word, targets in (("over", policy.must), ("around", policy.avoid)):
        if targets:
            said.append(f"{word} {', '.join(mesh.name(x) if len(x) == 40 else x for x in targets)}")
    return " ".join(said)


def add(words: Sequence[str], *, as_json: bool) -> None:
    """Lay a route by hand."""
    with Mesh(admin=True) as mesh:
        path = [mesh.find(word) for word in words]
        _told(mesh, _wait(mesh, api.LAY, api.Lay(path), api.Route), path[0], as_json=as_json)


def free(one: str, other: str, *, as_json: bool) -> None:
    """Let the policy decide again."""
    with Mesh(admin=True) as mesh:
        a, b = mesh.find(one), mesh.find(other)
        mesh.ask(api.FREE, api.Pair(a, b), api.Empty)
    if as_json:
        document({"a": a, "b": b})
    else:
        say(f"The policy decides between {mesh.name(a)} and {mesh.name(b)}.")


def policy(  # noqa: PLR0913 - its options
    one: str, other: str, metric: str, min_hops: int, max_hops: int, must: list[str], avoid: list[str],
    *, as_json: bool,
) -> None:  # fmt: skip
    """Say which way is good, and have one laid."""
    if metric not in METRICS:
        raise BadUsage(f"not a metric: {metric!r}; there are {', '.join(METRICS)}")
    with Mesh(admin=True) as mesh:
        a, b = mesh.find(one), mesh.find(other)
        meant = api.Policy(
            cast("Metric", metric), min_hops, max_hops,
            [mesh.find(word) for word in must], [mesh.find(word) for word in avoid],
        )  # fmt: skip
        query = api.Wanted(a, b, meant)
        _told(mesh, _wait(mesh, api.POLICY, query, api.Route), a, as_json=as_json)


def ls() -> None:
    """What was said for which two nodes."""
    found: list[api.Wish] = []
    with Mesh() as mesh:
        mesh.must_have_manager()
        after, more = api.After(), True
        while more:
            page = mesh.ask(api.WISHES, after, api.Wishes)
            found += page.wishes
            more = page.more and bool(page.wishes)
            if more:
                after = api.After(page.wishes[-1].a, page.wishes[-1].b)
    found.sort(key=lambda wish: (mesh.name(wish.a), mesh.name(wish.b)))
    cells = [(mesh.name(wish.a), mesh.name(wish.b), _wish_text(mesh, wish)) for wish in found]
    none = "Nothing was said: between all nodes the fastest way is used. See: viscript node route policy"
    listing(found, ("NODE", "NODE", "WAY"), cells, none)


def _wish_text(mesh: Mesh, wish: api.Wish) -> str:
    policy = _policy_text(mesh, wish.policy)
    if wish.by_hand is None:
        return policy
    return f"by hand: {mesh.path(wish.by_hand)}; else {policy}"


def _wait(mesh: Mesh, subject: str, query: api.Lay | api.Wanted, kind: type[T]) -> T:
    mesh.must_have_manager()
    return mesh.ask(subject, query, kind, timeout=PATIENCE)


def _told(mesh: Mesh, route: api.Route, begin: str, *, as_json: bool) -> None:
    if as_json:
        document(route)
    else:
        say(f"{mesh.path(route.path, begin=begin)} (route {route.route})")
