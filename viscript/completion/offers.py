"""What may stand where the cursor is. Pure, and imports nothing: it runs at every press of the tab key.

A tree is what `viscript.surface.tree` writes, a snapshot what `viscript.snapshot` does, as JSON values.
Whatever is not as it should be in them is not offered, nothing is worth a message.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    Node = Mapping[str, Any]
    Snapshot = Mapping[str, Any]
    Offer = tuple[str, str]  # what is inserted, what it is

FILES, FOLDERS = ":files", ":folders"  # instead of offers: the shell knows better
LIMIT = 2000  # offers
STATES = (
    "running", "failed", "backoff", "blocked", "starting", "stopping", "stopped", "exited",
)  # fmt: skip
ROLES = ("view", "operate", "configure", "admin")
SIGNALS = ("TERM", "KILL", "HUP", "INT", "QUIT", "USR1", "USR2", "STOP", "CONT", "WINCH")
FIELDS = (
    ("state=", "in this state"), ("group=", "of this group"), ("host=", "on this host"),
    ("app=", "of this name"), ("not", "what the next does not match"),
)  # fmt: skip
_WORDS = {"file": (FILES,), "folder": (FOLDERS,), "role": ROLES, "signal": SIGNALS}
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@:/+=,-*%")


def offers(words: Sequence[str], tree: Node, snapshot: Snapshot) -> list[Offer]:
    """For the last of `words` (those after `viscript`), which may be empty."""
    *before, current = words or [""]
    place = Place(tree)
    for word in before:
        place.take(word)
    found = place.here(current, snapshot)
    if found and found[0][0] in {FILES, FOLDERS}:
        return found[:1]
    return fitting(found, current)


def fitting(found: Sequence[Offer], current: str) -> list[Offer]:
    """What `current` may become, once each, and nothing that could do harm."""
    low, seen = current.lower(), set[str]()
    kept: list[Offer] = []
    for word, text in found:
        if word.lower().startswith(low) and word not in seen and _is_safe(word):
            seen.add(word)
            kept.append((word, _plain(text)))
    return kept[:LIMIT]


class Place:
    """Where the words so far have led: a command, how many arguments it has, an option without its value."""

    def __init__(self, tree: Node) -> None:
        self.node = tree
        self.pending: Node | None = None  # an option whose value comes next
        self.arguments: list[str] = []
        self.only_arguments = False  # after --, or what is an app's own

    def take(self, word: str) -> None:
        """Go on by one word."""
        if self.pending is not None:
            self.pending = None
        elif word == "--" and not self.only_arguments:
            self.only_arguments = True
        elif word.startswith("-") and len(word) > 1 and not self.only_arguments:
            option = self._option(word)
            if option.get("value") and "=" not in word:
                self.pending = option
        else:
            self._argument(word)

    def _option(self, word: str) -> Node:
        options: Node = self.node.get("options", {})
        found: Node = options.get(word.partition("=")[0], {})
        return found

    def _argument(self, word: str) -> None:
        below = self.node.get("subs", {}).get(word)
        if below is not None and not self.arguments:
            self.node = below
            return
        self.arguments.append(word)
        self.only_arguments = self.only_arguments or bool(self.node.get("verbatim"))

    @property
    def kind(self) -> str:
        """Of the next argument; empty when none is expected."""
        kinds, at = self.node.get("kinds", ()), len(self.arguments)
        if not kinds or (at >= len(kinds) and not self.node.get("many")):
            return ""
        return str(kinds[min(at, len(kinds) - 1)])

    def here(self, current: str, snapshot: Snapshot) -> list[Offer]:
        """Everything that may stand here, whatever of it is typed already."""
        if self.pending is not None:
            return list(values(str(self.pending["value"]), current, snapshot))
        if current.startswith("-") and not self.only_arguments:
            name, equals, rest = current.partition("=")
            if equals:
                found = values(str(self._option(name).get("value", "")), rest, snapshot)
                return [(f"{name}={word}", text) for word, text in found if word[:1] != ":"]
            return [(name, option.get("help", "")) for name, option in self._options()]
        if not self.arguments and self.node.get("subs"):
            return [(name, sub.get("help", "")) for name, sub in self.node["subs"].items()]
        used = set(self.arguments)
        found = values(self.kind, current, snapshot)
        return [offer for offer in found if offer[0] not in used]

    def _options(self) -> Iterator[tuple[str, Node]]:
        yield from self.node.get("options", {}).items()


def values(kind: str, current: str, snapshot: Snapshot) -> Iterator[Offer]:
    """What can be offered of a kind of argument (`viscript.surface.registry.Kind`, and some of options)."""
    match kind:
        case "select":
            yield from _selected(current, snapshot)
        case "job":
            rows = _rows(snapshot, "jobs", "id", "text")
            yield from ((str(job["id"]), job["text"]) for job in rows)
        case "host" | "context" | "node":
            yield from ((name, kind) for name in _names(snapshot, f"{kind}s"))
        case _ if kind in _OF:
            yield from _OF[kind](snapshot)
        case _:
            words = _WORDS.get(kind, kind.split("|") if "|" in kind else ())
            yield from ((word, "") for word in words)


def _apps(snapshot: Snapshot) -> Iterator[Offer]:
    apps = _rows(snapshot, "apps", "name")
    for app in apps:
        yield app["name"], str(app.get("help", ""))
    for app in apps:
        yield from ((alias, f"short for {app['name']}") for alias in _names(app, "short"))


def _launches(snapshot: Snapshot) -> Iterator[Offer]:
    launches = _rows(snapshot, "launches", "id", "app", "state")
    count: dict[str, int] = {}
    for launch in launches:
        count[launch["app"]] = count.get(launch["app"], 0) + 1
    for launch in launches:
        if count[launch["app"]] == 1:
            yield launch["app"], f"ID {launch['id']}, {launch['state']}"
    for launch in launches:
        yield str(launch["id"]), f"{launch['app']}, {launch['state']}"


def _selected(current: str, snapshot: Snapshot) -> Iterator[Offer]:
    """Names and ids, then what grows into a selector; behind `host:` its launches."""
    launches = _rows(snapshot, "launches", "id", "app", "state")
    host, colon, _ = current.partition(":")
    field, equals, _ = current.partition("=")
    if equals:
        yield from _of_field(field, snapshot)
        return
    if colon:
        yield from ((f"{host}:{x['app']}", x["state"]) for x in launches if x.get("host") == host)
        yield from (
            (f"{host}:{x['instance']}", x["state"])
            for x in launches
            if x["app"] == host and isinstance(x.get("instance"), int)
        )
        return
    count: dict[str, list[str]] = {}
    for launch in launches:
        count.setdefault(launch["app"], []).append(f"ID {launch['id']}, {launch['state']}")
    for app, texts in count.items():
        yield app, texts[0] if len(texts) == 1 else f"{len(texts)} launches"
    yield from ((str(launch["id"]), f"{launch['app']}, {launch['state']}") for launch in launches)
    yield from ((f"@{group}", "group") for group in _groups(snapshot))
    yield from ((f"{name}:", "host") for name in _names(snapshot, "hosts"))
    yield from FIELDS


_OF = {"app": _apps, "launch": _launches}


def _of_field(field: str, snapshot: Snapshot) -> Iterator[Offer]:
    match field:
        case "state":
            found: Sequence[str] = STATES
        case "group":
            found = _groups(snapshot)
        case "host":
            found = _names(snapshot, "hosts")
        case "app":
            found = [app["name"] for app in _rows(snapshot, "apps", "name")]
        case _:
            found = ()
    yield from ((f"{field}={word}", "") for word in found)


def _groups(snapshot: Snapshot) -> list[str]:
    rows = [*_rows(snapshot, "apps", "name"), *_rows(snapshot, "launches", "app")]
    return sorted({group for row in rows for group in _names(row, "groups")})


def _rows(snapshot: Snapshot, name: str, *needed: str) -> list[dict[str, Any]]:
    found = snapshot.get(name, ())
    if not isinstance(found, list | tuple):
        return []
    rows = [row for row in found if isinstance(row, dict)]
    return [row for row in rows if all(isinstance(row.get(n), str | int) for n in needed)]


def _names(where: Mapping[str, Any], name: str) -> list[str]:
    found = where.get(name, ())
    return [x for x in found if isinstance(x, str)] if isinstance(found, list | tuple) else []


def _is_safe(word: str) -> bool:
    """Nothing that a shell would read as more than a word, whoever named it."""
    return bool(word) and _SAFE.issuperset(word)


def _plain(text: object) -> str:
    """One line that no terminal acts on."""
    return "".join(c if c.isprintable() else " " for c in str(text)[:200])
