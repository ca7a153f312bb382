"""Apps that run as somebody else than root, whose daemon starts them."""

import pytest

from tests.support.instance import instance, until


@pytest.fixture
def up(tmp_path):
    with instance(tmp_path / "h") as made:
        yield made


def test_an_app_runs_as_another_user_without_what_is_roots(up):
    tell = "id -un; id -gn; id -Gn; cat $VISCRIPT_KEY_FILE || echo no key; exec sleep 1000"
    who = {"path": "sh", "args": ["-c", tell], "user": "nobody", "cwd": "/"}
    up.configure({"who": who, "grouped": {**who, "group": "daemon"}})
    for app, group in (("who", "nogroup"), ("grouped", "daemon")):
        number = up.start(app)["id"]
        until(lambda number=number: "no key" in up.run("logs", str(number)).stdout)
        lines = up.run("logs", str(number)).stdout.splitlines()
        assert lines[:2] == ["nobody", group]
        assert "root" not in lines[2].split()


def test_its_own_folder_must_be_named_as_the_home_is_closed(up):
    up.configure({"who": {"path": "id", "user": "nobody"}})
    refused = up.run("start", "who", code=8).stderr
    assert "nobody has no way to its folder in the home; name a folder of its own: cwd" in refused
