"""Roles as pure policy: deny by default, steps, selectors; what cannot be told counts against who asks."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from viscript import roles, rolesfile
from viscript.errors import BadConfig, BadUsage, Denied, NotFound
from viscript.events import Event
from viscript.roles import EVERYTHING, Caller, Grant, Policy, Role

KEY, OTHER = "k" * 40, "o" * 40


@dataclass(frozen=True)
class Launch:
    app: str
    groups: tuple[str, ...] = ()
    host: str = "here"


@dataclass(frozen=True)
class Bare:
    """Something of which no more than the app is known."""

    app: str


def holding(*grants: tuple[Role, str]) -> Caller:
    policy = Policy()
    for role, on in grants:
        policy = policy.with_grant(Grant(KEY, role, on))
    return roles.caller(policy, KEY)


def test_nothing_is_allowed_that_nothing_allows():
    nobody = roles.caller(Policy((Grant(OTHER, Role.ADMIN),)), KEY)
    assert nobody.role is None
    assert not nobody.anywhere(Role.VIEW)
    assert not nobody.may(Role.VIEW, Launch("web"))
    with pytest.raises(Denied, match="has no role on this host; an admin allows it"):
        nobody.require_everywhere(Role.VIEW)


def test_a_role_on_a_selector_is_none_on_everything():
    caller = holding((Role.ADMIN, "@front"))
    assert caller.role is None
    assert caller.anywhere(Role.ADMIN)
    assert caller.may(Role.ADMIN, Launch("web", ("front",)))
    assert not caller.may(Role.VIEW, Launch("db"))
    with pytest.raises(Denied, match="on everything here"):
        caller.require_everywhere(Role.VIEW)
    with pytest.raises(Denied, match="may not view db"):
        caller.require(Role.VIEW, Launch("db"))


@pytest.mark.parametrize("on", ["not @secret", "group!=secret", "@front", "here:web", "host=here"])
def test_what_cannot_be_told_counts_against_who_asks(on):
    assert not holding((Role.ADMIN, on)).may(Role.VIEW, Bare("web"))
    assert holding((Role.ADMIN, on)).may(Role.VIEW, Launch("web", ("front",)))


def test_an_event_from_before_groups_were_kept_is_not_taken_for_one_without():
    caller = holding((Role.VIEW, "not @secret"))
    event = Event(seq=1, ts=1.0, app="web", to="running", cause="ready")
    assert not caller.may(Role.VIEW, event)
    assert caller.may(Role.VIEW, replace(event, groups=["front"]))
    assert not caller.may(Role.VIEW, replace(event, groups=["secret"]))


@given(
    st.lists(
        st.tuples(st.sampled_from(Role), st.sampled_from([EVERYTHING, "w*", "@g", "not w*"])),
        max_size=4,
    ),
    st.sampled_from([Launch("web"), Launch("db", ("g",)), Bare("web"), Bare("db")]),
)
def test_roles_are_steps_and_more_grants_never_take_away(grants, what):
    caller = holding(*grants)
    held = [role for role in Role if caller.may(role, what)]
    assert held == [role for role in Role if held and role <= held[-1]]
    if held:
        assert caller.anywhere(held[-1])
    fewer = holding(*[(role, on) for role, on in grants if on != EVERYTHING])
    assert all(caller.may(role, what) for role in Role if fewer.may(role, what))


def test_a_second_grant_for_the_same_takes_the_place_of_the_first():
    policy = Policy().with_grant(Grant(KEY, Role.ADMIN)).with_grant(Grant(KEY, Role.VIEW))
    assert roles.caller(policy, KEY).role is Role.VIEW
    assert policy.without(KEY).grants == ()
    with pytest.raises(NotFound):
        policy.without(KEY, "@front")


def test_a_file_says_what_was_saved(tmp_path):
    path = tmp_path / "roles.yaml"
    assert rolesfile.load(path) == Policy()
    policy = Policy()
    for grant in (
        Grant(KEY, Role.VIEW, name="laptop: \u00fc"),
        Grant(KEY, Role.OPERATE, "@front and not db"),
        Grant(OTHER, Role.ADMIN),
    ):
        policy = policy.with_grant(grant)
    rolesfile.save(path, policy)
    assert rolesfile.load(path) == policy
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "[]", "keys: 5", "keys: [5]", "keys: [{}]", "more: 1", "keys: [{key: x, role: view}]",
        f"keys: [{{key: {KEY}, role: god}}]", f"keys: [{{key: {KEY}, role: view, of: x}}]",
        f"keys: [{{key: {KEY}, role: view, on: 5}}]", f"keys: [{{key: {KEY}, role: view, on: '('}}]",
        f"keys: [{{key: {KEY}, role: view}}, {{key: {KEY}, role: admin}}]",
        "keys: [", "\x00", "keys: !!python/object:os.system x", "a: &a [*a]",
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_refused_with_its_name(tmp_path, text):
    path = tmp_path / "roles.yaml"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(BadConfig, match=r"roles\.yaml"):
        rolesfile.load(path)


def test_a_role_is_named_or_refused():
    assert Role.named("Operate") is Role.OPERATE
    with pytest.raises(BadUsage, match="view, operate, configure, admin"):
        Role.named("root")
