"""A key's own rules at the broker's core: what it gets, what it may do, and how that changes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus import signals, wire
from bus.access import VERBS, Verb, may, rights_of
from bus.signals import AccessEntry, Rules
from tests.support.dialogue import Peer, Table, key_of, only, refused
from tests.unit.bus.test_subjects import matches, patterns, subjects


def table(**rules: AccessEntry) -> Table:
    made = Table(boss="admin", anna="app", bert="app")
    access = made.router.sessions.access
    for name, entry in rules.items():
        access = access.with_entry(
            AccessEntry(key_of(name), name, entry.roles, entry.allow, entry.deny)
        )
    made.router.replace_access(access)
    return made


def like(*roles: str, allow: Rules | None = None, deny: Rules | None = None) -> AccessEntry:
    return AccessEntry("", "", list(roles), allow, deny)


def gets(publisher: Peer, subscriber: Peer, *told: str) -> list[str]:
    """Publish on these subjects; those that the subscriber hears of."""
    for subject in told:
        publisher.say(wire.Publish(subject))
    return [c.s for c in subscriber.hears() if isinstance(c, wire.Delivery)]


def test_a_subscription_that_reaches_into_a_deny_gets_the_rest() -> None:
    bus = table(anna=like("app", deny=Rules(subscribe=["app.secret.>"])))
    anna, bert = bus.join("anna"), bus.join("bert")
    for sid, pattern in enumerate(["app.>", "app.*.x", "app.secret"]):
        only(anna.say(wire.Subscribe(1, sid, pattern)), wire.Ok)
    assert gets(bert, anna, "app.secret.x") == []
    assert gets(bert, anna, "app.open.x") == ["app.open.x", "app.open.x"]
    assert gets(bert, anna, "app.secret") == ["app.secret", "app.secret"]
    assert gets(bert, anna, "app.secret.x") == []


def test_a_subscription_that_a_deny_covers_is_refused() -> None:
    bus = table(anna=like("app", deny=Rules(subscribe=["app.secret.>"])))
    anna = bus.join("anna")
    for pattern in ("app.secret.x", "app.secret.*", "app.secret.>"):
        assert refused(anna.say(wire.Subscribe(7, 1, pattern))) == (403, "denied", 7)


def test_a_queue_group_gives_what_is_denied_to_one_member_to_another() -> None:
    bus = table(anna=like("app", deny=Rules(subscribe=["app.job.secret"])))
    anna, bert = bus.join("anna"), bus.join("bert")
    for member in (anna, bert):
        only(member.say(wire.Subscribe(1, 1, "app.job.*", q="g")), wire.Ok)
    boss = bus.join("boss")
    assert gets(boss, anna, *["app.job.secret"] * 4) == []
    assert [c.s for c in bert.hears() if isinstance(c, wire.Delivery)] == ["app.job.secret"] * 4


def test_a_deny_that_is_added_holds_from_the_next_message_on_and_one_taken_away_no_more() -> None:
    bus = table()
    boss, anna, bert = bus.join("boss"), bus.join("anna"), bus.join("bert")
    only(anna.say(wire.Subscribe(1, 1, "app.>")), wire.Ok)
    assert gets(bert, anna, "app.secret.x") == ["app.secret.x"]
    denied = AccessEntry(key_of("anna"), "anna", ["app"], deny=Rules(subscribe=["app.secret.>"]))
    assert boss.asks(signals.ACCESS_PUT, denied) == {}
    assert gets(bert, anna, "app.secret.x", "app.open") == ["app.open"]
    assert boss.asks(signals.ACCESS_PUT, AccessEntry(key_of("anna"), "anna", ["app"])) == {}
    assert gets(bert, anna, "app.secret.x") == ["app.secret.x"]


def test_a_service_that_reaches_into_a_deny_is_refused() -> None:
    bus = table(anna=like("app", deny=Rules(serve=["app.secret.>"])))
    anna = bus.join("anna")
    assert refused(anna.say(wire.Serve(1, "app.>"))) == (403, "denied", 1)
    assert refused(anna.say(wire.Serve(2, "app.secret.x"))) == (403, "denied", 2)
    only(anna.say(wire.Serve(3, "app.open.*")), wire.Ok)


@pytest.mark.parametrize(
    ("verb", "command"),
    [
        ("publish", wire.Publish("plant.x", id=1)), ("subscribe", wire.Subscribe(1, 1, "plant.x")),
        ("serve", wire.Serve(1, "plant.x")), ("request", wire.Request(1, "plant.x", 1000)),
        ("signal", wire.Signal(key_of("bert"), "plant.x", 1)),
    ],
)  # fmt: skip
def test_a_key_without_a_role_may_what_its_rules_allow(verb: Verb, command: wire.Command) -> None:
    bus = table(anna=like(allow=Rules(**{verb: ["plant.>"]})))
    anna, bert = bus.join("anna"), bus.join("bert")
    only(bert.say(wire.Subscribe(5, 5, "app.x")), wire.Ok)
    heard = anna.say(command)
    assert not any(isinstance(c, wire.Error) and c.err == "denied" for c in heard)
    assert refused(anna.say(wire.Publish("app.x", id=2))) == (403, "denied", 2)
    error = only(anna.say(wire.Publish("app.x", id=3)), wire.Error)
    assert error.msg == "publish app.x: not allowed to this key"


some_patterns = st.lists(patterns, max_size=3)


@given(some_patterns, some_patterns, patterns)
@settings(deadline=None)
def test_no_subscription_hears_more_than_is_allowed_and_not_denied(
    allow: list[str], deny: list[str], pattern: str
) -> None:
    """Over all subjects: refused, or what is delivered is allowed and not denied."""
    rights = rights_of([], Rules(subscribe=allow), Rules(subscribe=deny))
    if not may(rights, "subscribe", pattern):
        return
    for subject in SAMPLES:
        if matches(pattern, subject) and rights.delivers(subject):
            assert any(matches(a, subject) for a in allow)
            assert not any(matches(d, subject) for d in deny)


SAMPLES = [
    ".".join(tokens)
    for one in ("a", "b", "$SYS")
    for tokens in ([one], [one, "a"], [one, "b"], [one, "a", "ab"], [one, "x-1", "a", "b"])
]


@given(some_patterns, some_patterns, subjects, st.sampled_from(VERBS))
@settings(deadline=None)
def test_a_subject_is_allowed_when_something_allows_it_and_nothing_denies_it(
    allow: list[str], deny: list[str], subject: str, verb: Verb
) -> None:
    rights = rights_of([], Rules(**{verb: allow}), Rules(**{verb: deny}))
    reserved = subject.startswith("$SYS.") and verb in {"publish", "serve"}
    wanted = any(matches(a, subject) for a in allow) and not any(matches(d, subject) for d in deny)
    assert may(rights, verb, subject) is (wanted and not reserved)
