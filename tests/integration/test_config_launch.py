"""What an entry says of a program is how the program is started."""

import pytest

from tests.support.instance import instance, until

TELL = "umask; nice; ulimit -n; ulimit -c; echo A=$A B=$B C=$C; pwd -P; exec sleep 1000"


@pytest.fixture
def up(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        yield made


def told(up, app: str) -> list[str]:
    until(lambda: len(up.run("logs", app).stdout.splitlines()) >= 6)
    return up.run("logs", app).stdout.splitlines()


def test_umask_priority_limits_and_environment_reach_the_program(up):
    (up.root / "one.env").write_text("# first\nA=one\nB='of one'\n")
    (up.root / "two.env").write_text('export B="of two"\nC=two\n')
    up.configure(
        {
            "teller": {
                "path": "sh", "args": ["-c", TELL], "autostart": True, "cwd": ".", "umask": "027",
                "nice": 3, "limits": {"nofile": 77, "core": 0},
                "env_file": ["one.env", "two.env"], "env": {"C": "of env"},
            }
        }
    )  # fmt: skip
    up.run("up", "--detach")
    assert told(up, "teller") == ["0027", "3", "77", "0", "A=one B=of two C=of env", str(up.root)]


def test_a_missing_file_of_variables_is_said_and_the_app_not_started(up):
    up.configure({"teller": {"path": "sh", "env_file": ["no.env"]}})
    up.run("up", "--detach")
    refused = up.run("start", "teller", code=8).stderr
    assert f"{up.root}/no.env: cannot be read: No such file or directory" in refused


def test_values_of_such_files_are_shown_by_no_command(up):
    (up.root / "a.env").write_text("WORD=hidden-value\n")
    up.configure(
        {"teller": {"path": "sleep", "args": ["1000"], "env_file": ["a.env"], "autostart": True}}
    )
    up.run("up", "--detach")
    for command in (
        ("show", "teller"), ("config", "show"), ("apps", "--json"), ("help", "teller"),
        ("la", "--json"), ("status", "--json"), ("config", "plan", "--json"), ("logs", "daemon"),
    ):  # fmt: skip
        assert "hidden-value" not in up.run(*command).stdout, command
    for file in up.root.glob("**/*"):  # nor kept by us
        if file.is_file() and file.name != "a.env":
            assert b"hidden-value" not in file.read_bytes(), file


def test_a_user_who_does_not_exist_is_said_before_anything_is_started(up):
    up.configure({"teller": {"path": "sh", "user": "no-such-user"}})
    assert "there is no user 'no-such-user'" in up.run("config", "check").stdout
    up.run("up", "--detach")
    assert (
        "config.yaml:4: apps.teller.user: there is no" in up.run("start", "teller", code=8).stderr
    )
