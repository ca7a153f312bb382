"""Who may do what: default deny, roles, and files that cannot be used."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus import access
from bus.access import ROLES, AccessError, AccessList, may, rights_for, rights_of
from bus.signals import AccessEntry, Rules
from tests.support.dialogue import key_of

VERBS = ("publish", "subscribe", "request", "serve", "signal")
SOME = ["app.x", "topic.a.b", "mesh.link", "mesh.lay", "mesh.event.up", "node.routes", "viscript.list",
        "signal.ping", "$SYS.sessions", "$SYS.info", "$SYS.access.put", "$SYS.presence.00", "$SYS.kick",
        "$SYS.topics", "$SYS.consumers", "$SYS.consumer.put", "$SYS.topic.put", "$SYS.enrol.list",
        "$SRV.INFO", "other", ">", "app.>"]  # fmt: skip
DURABLE = {"$SYS.topics", "$SYS.consumers", "$SYS.consumer.put"}
ALLOWED = {
    ("observer", "subscribe"): set(SOME),
    ("observer", "request"): {
        "$SYS.sessions", "$SYS.info", "viscript.list", "$SYS.topics", "$SYS.consumers",
    },
    ("app", "publish"): {"app.x", "app.>", "topic.a.b"},
    ("app", "subscribe"): {"app.x", "app.>", "topic.a.b", "mesh.event.up"},
    ("app", "request"): {"app.x", "app.>", "$SRV.INFO", *DURABLE},
    ("app", "serve"): {"app.x", "app.>", "$SRV.INFO"},
    ("node", "publish"): {"app.x", "app.>", "topic.a.b"},
    ("node", "subscribe"): {"app.x", "app.>", "topic.a.b", "mesh.event.up"},
    ("node", "request"): {"app.x", "app.>", "mesh.link", "$SRV.INFO", *DURABLE},
    ("node", "serve"): {"app.x", "app.>", "$SRV.INFO"},
    ("manager", "publish"): {"app.x", "app.>", "topic.a.b", "mesh.link", "mesh.lay", "mesh.event.up"},
    ("manager", "subscribe"): {
        "app.x", "app.>", "topic.a.b", "mesh.event.up", "$SYS.presence.00",
    },
    ("manager", "request"): {"app.x", "app.>", "node.routes", "$SRV.INFO", *DURABLE},
    ("manager", "serve"): {"app.x", "app.>", "mesh.link", "mesh.lay", "mesh.event.up", "$SRV.INFO"},
    ("host", "subscribe"): {"$SYS.presence.00"},
    ("host", "request"): {"$SYS.sessions", "signal.ping"},
}  # fmt: skip
SYS = {s for s in SOME if s.startswith("$SYS.")}


@pytest.mark.parametrize(
    ("role", "verb"), [*itertools.product(["observer", "app", "node", "manager", "host"], VERBS)]
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
    without = {
        "publish": SYS, "serve": SYS, "subscribe": set(),
        "request": {"$SYS.access.put", "$SYS.enrol.list", "mesh.lay"},
        "signal": {"$SYS.access.put", "$SYS.enrol.list"},
    }  # fmt: skip
    assert allowed == set(SOME) - without[verb]


def test_no_role_and_an_unknown_role_allow_nothing() -> None:
    for roles in ([], ["nobody"], ["Admin"]):
        assert not any(may(rights_of(roles), v, s) for v in VERBS for s in SOME)


@pytest.mark.parametrize("verb", VERBS)
def test_a_deny_wins_over_the_role_and_the_keys_own_allow(verb: access.Verb) -> None:
    secret = Rules(**{verb: ["app.secret.>"]})
    rights = rights_of(["admin"], allow=Rules(**{verb: ["app.secret.x"]}), deny=secret)
    assert may(rights, verb, "app.open")
    assert not may(rights, verb, "app.secret.x")


@pytest.mark.parametrize("verb", VERBS)
def test_a_rule_holds_for_its_verb_only(verb: access.Verb) -> None:
    rule = Rules(**{verb: ["plant.>"]})
    grants, denies = rights_of([], allow=rule), rights_of(["admin"], deny=rule)
    assert [v for v in VERBS if may(grants, v, "plant.x")] == [verb]
    assert [v for v in VERBS if not may(denies, v, "plant.x")] == [verb]


def test_a_key_may_have_rights_of_its_own_and_no_role() -> None:
    entry = AccessEntry(key_of("a"), "a", [], allow=Rules(publish=["topic.sensor.a.>"]))
    rights = rights_for(entry)
    assert may(rights, "publish", "topic.sensor.a.heat")
    assert not may(rights, "publish", "topic.sensor.b.heat")
    assert not may(rights, "subscribe", "topic.sensor.a.heat")


def test_no_rule_of_its_own_lets_a_key_speak_for_the_broker() -> None:
    everything = Rules(publish=[">", "$SYS.>"], serve=[">", "$SYS.>"])
    rights = rights_of([], allow=everything)
    assert not may(rights, "publish", "$SYS.presence.x")
    assert not may(rights, "serve", "$SYS.info")


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [("app.secret.>", False), ("app.secret.x", False), ("app.secret.*", False), ("app.>", True),
     ("app.*.x", True), ("app.open", True), ("topic.secret.x", True)],
)  # fmt: skip
def test_a_subscription_is_refused_when_a_deny_covers_it(pattern: str, *, allowed: bool) -> None:
    rights = rights_of(["app"], deny=Rules(subscribe=["app.secret.>"]))
    assert may(rights, "subscribe", pattern) is allowed


def test_a_subscription_that_reaches_into_a_deny_gets_the_rest() -> None:
    rights = rights_of(["app"], deny=Rules(subscribe=["app.secret.>", "app.*.pin"]))
    subjects = ["app.open", "app.secret", "app.secret.x", "app.door.pin", "app.door.pin.x"]
    assert [s for s in subjects if rights.delivers(s)] == [
        "app.open",
        "app.secret",
        "app.door.pin.x",
    ]


def test_a_service_that_reaches_into_a_deny_is_refused() -> None:
    rights = rights_of(["app"], deny=Rules(serve=["app.secret.>"]))
    assert not may(rights, "serve", "app.>")
    assert not may(rights, "serve", "app.*.x")
    assert may(rights, "serve", "app.open.*")


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
    ruled = AccessEntry(key_of("c"), "c", [], Rules(publish=["a.>"]), Rules(serve=["b", "*.c"]))
    some = AccessList([entry("a"), entry("b", ("operator", "admin")), ruled])
    assert access.decode(access.encode(some)).entries == some.entries


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (AccessEntry("short", "x", ["app"]), "'short' is not a key in Z85 form"),
        (AccessEntry(key_of("a"), "x", ["boss"]), "unknown role 'boss'.*roles are admin, operator"),
        (AccessEntry(key_of("a"), "x", []), "no role"),
        (AccessEntry(key_of("a"), "x", [], Rules(), Rules(publish=["x"])), "no role"),
        (
            AccessEntry(key_of("a"), "x", ["app"], Rules(publish=["a..b"])),
            "allow of.*pattern: 'a..b'",
        ),
        (AccessEntry(key_of("a"), "x", ["app"], None, Rules(signal=[""])), "deny of.*pattern: ''"),
        (AccessEntry(key_of("a"), "x", ["app"], None, Rules(serve=["\x1b" * 9999])), "pattern"),
        (
            AccessEntry(key_of("a"), "x", ["app"], Rules(["a"] * 33, ["b"] * 32)),
            "65 patterns, at most 64",
        ),
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


@pytest.mark.parametrize(
    "extra",
    [b'"denny": {"publish": [">"]}', b'"deny": {"publishes": [">"]}', b'"deny": [">"]',
     b'"allow": {"publish": ">"}'],
)  # fmt: skip
def test_a_misspelt_rule_in_a_file_is_not_passed_over(extra: bytes) -> None:
    good = access.encode(AccessList([entry()]))
    access.decode(good)
    with pytest.raises(AccessError, match=r"den|publish"):
        access.decode(good.replace(b'"name"', extra + b', "name"'))


def test_a_key_that_stands_twice_in_a_file_is_refused() -> None:
    one = access.encode(AccessList([entry()])).decode()
    inner = one[one.index("[") + 1 : one.rindex("]")]
    with pytest.raises(AccessError, match="twice"):
        access.decode(one.replace(inner, f"{inner}, {inner}").encode())


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_garbage_raises_nothing_but_an_access_error(text: bytes) -> None:
    with pytest.raises(AccessError):
        access.decode(text)
