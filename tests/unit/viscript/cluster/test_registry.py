"""Who belongs to a cluster, and what a host may have let in."""

import pytest

from bus.identity import fingerprint, from_bytes
from viscript.cluster.registry import Invite, Registry, check_name, name_of
from viscript.errors import Conflict, Denied, NotFound

NOW = 1000.0


def key(number: int) -> str:
    return from_bytes(bytes([number]) * 32)


def cluster(*numbers: int) -> Registry:
    """Hosts whose keys are these, their people's these + 100."""
    registry = Registry(name="first", handed=100)
    for number in numbers:
        registry = registry.with_invite(Invite(f"t{number}", "", "view", NOW + 600), NOW)
        registry, _ = registry.admit(key(number), f"t{number}", "beta", key(number + 100), NOW)
    return registry


def test_an_invitation_admits_one_host_once_with_what_it_promised() -> None:
    registry = Registry(name="first").with_invite(Invite("t", "attic", "operate", NOW + 600), NOW)
    registry, host = registry.admit(key(1), "t", "whatever", key(2), NOW)
    assert (host.name, host.role, host.state) == ("attic", "operate", "accepted")
    with pytest.raises(Denied):
        registry.admit(key(3), "t", "other", key(4), NOW)


def test_who_belongs_may_come_again_without_an_invitation_and_keeps_its_name() -> None:
    registry = cluster(1)
    again, host = registry.admit(key(1), "", "other-name", key(101), NOW + 5)
    assert (again, host.name) == (registry, "beta")


def test_an_invitation_expires() -> None:
    registry = Registry(name="first").with_invite(Invite("t", "", "view", NOW + 600), NOW)
    with pytest.raises(Denied):
        registry.admit(key(1), "t", "beta", key(2), NOW + 601)


def test_two_hosts_that_call_themselves_the_same_get_two_names() -> None:
    assert [host.name for host in cluster(1, 2, 3).hosts] == ["beta", "beta-2", "beta-3"]


def test_a_name_that_is_taken_is_not_promised_again() -> None:
    for taken in ("first", "beta"):
        with pytest.raises(Conflict):
            cluster(1).with_invite(Invite("x", taken, "view", NOW + 600), NOW)


def test_a_host_cannot_take_the_keys_of_another() -> None:
    registry = cluster(1, 2).with_app(key(1), key(50), "web")
    for stolen in (key(50), key(1), key(101)):
        with pytest.raises(Denied):
            registry.with_app(key(2), stolen, "web")


def test_a_host_does_not_pass_its_own_key_off_as_an_apps() -> None:
    for own in (key(1), key(101)):
        with pytest.raises(Denied):
            cluster(1).with_app(key(1), own, "web")


def test_a_command_line_key_of_another_host_is_refused() -> None:
    registry = cluster(1).with_invite(Invite("x", "", "admin", NOW + 600), NOW)
    with pytest.raises(Denied):
        registry.admit(key(9), "x", "gamma", key(101), NOW)


def test_a_revoked_host_is_known_and_may_do_nothing() -> None:
    registry = cluster(1).with_app(key(1), key(50), "web")
    registry = registry.revoke(registry.find("beta"))
    assert registry.find("beta").state == "revoked"
    with pytest.raises(Denied):
        registry.with_app(key(1), key(51), "web")
    with pytest.raises(Denied):
        registry.admit(key(1), "", "beta", key(101), NOW)


def test_a_revoked_host_comes_back_with_a_new_invitation_only() -> None:
    registry = cluster(1)
    registry = registry.revoke(registry.find("beta"))
    registry = registry.with_invite(Invite("new", "", "view", NOW + 600), NOW)
    registry, host = registry.admit(key(1), "new", "beta", key(101), NOW)
    assert (host.name, host.state) == ("beta", "accepted")


def test_hosts_are_found_by_name_fingerprint_and_key() -> None:
    registry = cluster(1)
    for word in ("beta", fingerprint(key(1)), key(1)):
        assert registry.find(word).name == "beta"
    with pytest.raises(NotFound):
        registry.find("gamma")


@pytest.mark.parametrize("name", ["", "17", "-a", "a-", "A", "a_b", "a" * 33, "a\x1b[31m"])
def test_not_a_name(name: str) -> None:
    with pytest.raises(Conflict):
        check_name(name)


@pytest.mark.parametrize(
    ("machine", "name"),
    [("Attic.example.org", "attic"), ("web_01", "web-01"), ("10.0.0.1", "host-10"), ("", "host")],
)
def test_the_name_of_a_machine_becomes_the_name_of_a_host(machine: str, name: str) -> None:
    assert name_of(machine) == name
    check_name(name)


def test_a_host_that_was_removed_and_comes_again_keeps_the_ids_that_it_had() -> None:
    registry, block = cluster(1, 2).hand_out_to(key(1), 0)
    registry = registry.remove(registry.accepted(key(1)))
    registry = registry.with_invite(Invite("again", "", "view", NOW + 600), NOW)
    registry, host = registry.admit(key(1), "again", "beta", key(101), NOW)
    assert host.may_have(block.first)
    assert not host.may_have(block.last + 1)
    assert not registry.accepted(key(2)).may_have(block.first)
