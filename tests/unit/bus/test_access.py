"""Who may do what: default deny, roles, and files that cannot be used."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus import access
from bus.access import ROLES, AccessError, AccessList, Rights, may, rights_of
from bus.signals import AccessEntry
from tests.support.dialogue import key_of

VERBS = ("publish", "subscribe", "request", "serve", "signal")
SOME = ["app.x", "topic.a.b", "mesh.link", "mesh.event.up", "node.routes", "viscript.list",
        "signal.ping", "$SYS.sessions", "$SYS.info", "$SYS.access.put", "$SYS.presence.00",
        "other", ">", "app.>"]  # fmt: skip
ALLOWED = {
    ("observer", "subscribe"): set(SOME),
    ("observer", "request"): {"$SYS.sessions", "$SYS.info", "viscript.list"},
    ("app", "publish"): {"app.x", "app.>", "topic.a.b"},
    ("app", "subscribe"): {"app.x", "app.>", "topic.a.b", "mesh.event.up"},
    ("app", "request"): {"app.x", "app.>"},
    ("app", "serve"): {"app.x", "app.>"},
    ("node", "publish"): {"app.x", "app.>", "topic.a.b", "mesh.event.up"},
    ("node", "subscribe"): {"app.x", "app.>", "topic.a.b", "mesh.event.up"},
    ("node", "request"): {"app.x", "app.>", "mesh.link", "mesh.event.up"},
    ("node", "serve"): {"app.x", "app.>"},
    ("manager", "publish"): {"app.x", "app.>", "topic.a.b", "mesh.link", "mesh.event.up"},
    ("manager", "subscribe"): {
        "app.x", "app.>", "topic.a.b", "mesh.event.up", "$SYS.presence.00",
    },
    ("manager", "request"): {"app.x", "app.>", "node.routes"},
    ("manager", "serve"): {"app.x", "app.>", "mesh.link", "mesh.event.up"},
}  # fmt: skip
SYS = {s for s in SOME if s.startswith("$SYS.")}


@pytest.mark.parametrize(
    ("role", "verb"), [*itertools.product(["observer", "app", "node", "manager"], VERBS)]
)
def test_a_role_may_do_this_and_nothing_else(role: str, verb: access.Verb) -> None:
    rights = rights_of([role])
    assert {s for s in SOME if may(rights, verb, s)} == ALLOWED.get((role, verb), set())


@pytest.mark.parametrize("verb", VERBS)
def test_an_admin_may_do_all_but_speak_for_the_broker(verb: access.Verb) -> None:
    allowed = {s for s in SOME if may(rights_of(["admin"]), verb, s)}
    assert allowed == set(SOME) - (SYS if verb in {"publish", "serve"} else set())


@pytest.mark.parametrize("verb", VERBS)
def test_an_operator_does_not_decide_who_belongs(verb: access.Verb) -> None:
    allowed = {s for s in SOME if may(rights_of(["operator"]), verb, s)}
    without = SYS if verb in {"publish", "serve"} else {"$SYS.access.put"}
    assert allowed == set(SOME) - without


def test_no_role_and_an_unknown_role_allow_nothing() -> None:
    for roles in ([], ["nobody"], ["Admin"]):
        assert not any(may(rights_of(roles), v, s) for v in VERBS for s in SOME)


def test_a_deny_wins_over_an_allow() -> None:
    rights = Rights(publish=(">",), deny=("secret.>",))
    assert may(rights, "publish", "open.x")
    assert not may(rights, "publish", "secret.x")


def test_two_roles_allow_what_either_allows() -> None:
    rights = rights_of(["app", "manager"])
    assert may(rights, "serve", "mesh.link")
    assert may(rights, "publish", "app.x")


def test_an_operator_who_is_also_admin_is_an_admin() -> None:
    assert may(rights_of(["operator", "admin"]), "request", "$SYS.access.put")


@given(st.sampled_from(sorted(ROLES)), st.sampled_from(["publish", "serve"]), st.text(max_size=20))
@settings(deadline=None)
def test_nobody_speaks_under_sys(role: str, verb: access.Verb, rest: str) -> None:
    assert not may(rights_of([role]), verb, f"$SYS.{rest or 'x'}")


def entry(name: str = "a", roles: tuple[str, ...] = ("app",)) -> AccessEntry:
    return AccessEntry(key_of(name), name, list(roles))


def test_a_list_is_a_snapshot() -> None:
    empty = AccessList()
    one = empty.with_entry(entry())
    assert key_of("a") in one
    assert key_of("a") not in empty
    assert key_of("a") not in one.without(key_of("a"))
    assert key_of("a") in one


def test_putting_a_key_again_replaces_its_entry() -> None:
    twice = AccessList().with_entry(entry()).with_entry(entry(roles=("node",)))
    assert [e.roles for e in twice.entries] == [["node"]]
    found = twice.get(key_of("a"))
    assert found is not None
    assert found.roles == ["node"]


def test_an_encoded_list_decodes_to_the_same_entries() -> None:
    some = AccessList([entry("a"), entry("b", ("operator", "admin"))])
    assert access.decode(access.encode(some)).entries == some.entries


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (AccessEntry("short", "x", ["app"]), "'short' is not a key in Z85 form"),
        (AccessEntry(key_of("a"), "x", ["boss"]), "unknown role 'boss'.*roles are admin, operator"),
        (AccessEntry(key_of("a"), "x", []), "no role"),
        (AccessEntry(key_of("a"), "x" * 65, ["app"]), "at most 64 printable"),
        (AccessEntry(key_of("a"), "x\x1b[2J", ["app"]), "printable"),
        (AccessEntry(key_of("a"), "x", ["app"] * 1000), "1000 roles"),
    ],
)
def test_a_bad_entry_is_refused_with_the_reason(bad: AccessEntry, problem: str) -> None:
    with pytest.raises(AccessError, match=problem):
        AccessList().with_entry(bad)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b'{"keys": 1}', b'{"keys": [{}]}', b'{"keys": [{"key": 1}]}',
     b'{"keys": [{"key": "x", "name": "n", "roles": ["app"]}]}', b"\xff\xfe", b"[" * 100_000],
)  # fmt: skip
def test_a_broken_list_is_an_access_error(text: bytes) -> None:
    with pytest.raises(AccessError):
        access.decode(text)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_garbage_raises_nothing_but_an_access_error(text: bytes) -> None:
    with pytest.raises(AccessError):
        access.decode(text)
