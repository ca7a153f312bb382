"""Whom an app can run as is looked at when it is started, and what is wrong says the way out."""

import os
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from viscript import accounts
from viscript.config import App
from viscript.errors import BadConfig
from viscript.rules import Probe

APP = App("a", "x", "c.yaml:3", cwd="/tmp", places={"user": "c.yaml:4", "group": "c.yaml:5"})


@pytest.fixture
def machine(monkeypatch):
    """Root's daemon on a machine with www-data (33) and nobody (65534)."""
    users = {"www-data": (None, None, 33), "nobody": (None, None, 65534)}
    known = SimpleNamespace(euid=0)
    monkeypatch.setattr(accounts.pwd, "getpwnam", users.__getitem__)
    names = [SimpleNamespace(pw_name=name) for name in users]
    monkeypatch.setattr(accounts.pwd, "getpwall", lambda: names)
    monkeypatch.setattr(accounts.grp, "getgrnam", {"adm": (None, None, 4)}.__getitem__)
    monkeypatch.setattr(accounts.grp, "getgrall", lambda: [SimpleNamespace(gr_name="adm")])
    monkeypatch.setattr(os, "geteuid", lambda: known.euid)
    monkeypatch.setattr(os, "getegid", lambda: known.euid)
    return known


def complaint(**changes: object) -> str:
    with pytest.raises(BadConfig) as caught:
        accounts.check(replace(APP, **changes))
    return str(caught.value)


def test_roots_daemon_runs_apps_as_others(machine):
    accounts.check(APP)
    accounts.check(replace(APP, user="www-data", group="adm"))
    accounts.check(replace(APP, user="12345", group="4"))
    accounts.check(replace(APP, user="nobody", cwd=None, ready=Probe("bus")))
    accounts.check(replace(APP, group="adm", cwd=None))


def test_who_does_not_exist_is_said_with_its_place(machine):
    assert complaint(user="www-dta") == (
        "c.yaml:4: apps.a.user: there is no user 'www-dta' on this machine; did you mean 'www-data'?"
    )
    assert complaint(group="amd").startswith("c.yaml:5: apps.a.group: there is no group 'amd'")
    assert "is no number of a user" in complaint(user=str(2**32 - 1))


def test_a_users_own_daemon_runs_apps_as_that_user_only(machine):
    machine.euid = 33
    accounts.check(replace(APP, user="www-data", group="33", cwd=None, ready=Probe("bus")))
    assert "only a daemon of root can run it as nobody" in complaint(user="nobody")
    assert "only a daemon of root can run it in adm" in complaint(group="adm")
