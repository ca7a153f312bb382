"""`viscript config …` and `viscript show` without a daemon."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from viscript import config

GOOD = """\
apps:
  web:
    path: sh
    desc: A server
    restart: on-failure
    ready: {tcp: "127.0.0.1:8080", timeout: 3s}
    env: {A: 1}
  other:
    path: bin/other
    help: |
      One line.
      Another.
settings:
  runHeadless: true
"""


@pytest.fixture
def file(tmp_path) -> Path:
    (tmp_path / "c.yaml").write_text(GOOD)
    return tmp_path / "c.yaml"


def viscript(file: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess:
    environment = {
        **os.environ, "VISCRIPT_HOME": str(file.parent / "home"), "VISCRIPT_CONFIG": str(file),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-P", "-m", "viscript.cli", *arguments],
        env=environment, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == code, done
    return done


def test_check_says_that_all_is_well_and_what_could_not_start_here(file):
    done = viscript(file, "config", "check")
    assert done.stdout.splitlines() == [
        f"warning: {file}:9: apps.other.path: {file.parent}/bin/other does not exist",
        f"{file}: well, 2 apps",
    ]
    strict = viscript(file, "config", "check", "--strict", code=8)
    assert strict.stderr == f"error: {file}: 1 problem\n"


def test_check_says_all_that_keeps_an_app_from_being_started_here(file):
    (file.parent / "bad.env").write_text("no variable\n")
    apps = {
        "here": {"path": "python:viscript.cli", "ready": {"exec": ["true"]}},
        "module": {"path": "python:viscript.nosuch"},
        "elsewhere": {"path": "python:nosuch", "env": {"PYTHONPATH": "/srv"}},
        "all": {
            "path": "bin/nosuch", "user": "nosuchuser", "cwd": "nosuchfolder",
            "env_file": ["bad.env"], "ready": {"exec": ["nosuchprobe"]},
        },
    }  # fmt: skip
    file.write_text(yaml.dump({"apps": apps}, sort_keys=False))
    told = json.loads(viscript(file, "config", "check", "--json").stdout)["warnings"]
    assert [x["message"].partition(": ")[0] for x in told] == [
        "apps.module.path", "apps.all.path", "apps.all.user", "apps.all.env_file", "apps.all.cwd",
        "apps.all.ready.exec",
    ]  # fmt: skip
    assert "has no module 'viscript.nosuch'" in told[0]["message"]
    assert f"{file.parent}/bad.env:1: not NAME=value" in told[3]["message"]
    assert all(x["file"] == str(file) and x["line"] for x in told)


def test_check_says_all_that_is_wrong_with_its_place(file):
    file.write_text("apps:\n  a:\n    pth: x\n  b: {path: x, restart: alwys}\n")
    done = viscript(file, "config", "check", code=8)
    first, second = done.stdout.splitlines()
    assert first == f"{file}:3:5: apps.a: unknown key 'pth'; did you mean 'path'?"
    assert second.startswith(f"{file}:4:25: apps.b.restart: 'alwys' is not one of never, ")
    assert second.endswith("; did you mean 'always'?")
    assert done.stderr == f"error: {file}: 2 problems\n"
    found = json.loads(viscript(file, "config", "check", "--json", code=8).stdout)
    assert not found["ok"]
    assert [(x["line"], x["column"]) for x in found["errors"]] == [(3, 5), (4, 25)]
    assert found["errors"][0]["message"].startswith("apps.a: unknown key 'pth'")


def test_check_of_a_file_that_is_not_there(file):
    done = viscript(file, "config", "check", "/no/such.yaml", code=8)
    assert "/no/such.yaml: cannot be read" in done.stdout


def test_show_of_an_app_says_where_each_value_comes_from(file):
    found = json.loads(viscript(file, "show", "web", "--json").stdout)
    values = {x["key"]: (x["value"], x["source"]) for x in found["values"]}
    assert values["desc"] == ("A server", f"{file}:4")
    assert values["restart.policy"] == ("on-failure", f"{file}:5")
    assert values["restart.cap"] == ("1m", "default")
    assert values["ready.tcp"] == ("127.0.0.1:8080", f"{file}:6")
    assert values["ready.timeout"] == ("3s", f"{file}:6")
    assert values["ready.every"] == ("1s", "default")
    assert values["env.A"] == ("1", f"{file}:7")
    assert values["nice"] == (0, "default")
    assert found["command"][0].endswith("/sh")
    text = viscript(file, "show", "web").stdout
    assert "restart.policy       on-failure                  c.yaml:5\n" in text
    assert "no app 'wbe'" in viscript(file, "show", "wbe", code=5).stderr


def test_show_of_all_is_a_file_that_loads_as_the_same(file, tmp_path):
    shown = viscript(file, "config", "show").stdout
    again = config.parse(shown.encode(), file)
    assert again.apps["other"].help == "One line.\nAnother.\n"
    assert again.settings == {"runHeadless": True}
    assert list(json.loads(viscript(file, "config", "show", "web", "--json").stdout)["apps"]) == [
        "web"
    ]
    assert yaml.safe_load(shown)["apps"]["web"]["log"]["size"] == "10MiB"


def test_the_schema_is_printed(file):
    printed = json.loads(viscript(file, "config", "schema").stdout)
    assert printed == json.loads(config.schema().read_text())


def test_a_configuration_may_come_out_of_a_pipe_that_a_shell_made(file):
    script = f'"{sys.executable}" -P -m viscript.cli config check <(sleep 0.1; cat "{file}")'
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    assert "well, 2 apps" in done.stdout
