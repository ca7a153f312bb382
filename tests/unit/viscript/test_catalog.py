"""From an app's entry to what is run."""

import os
import sys
from pathlib import Path

import pytest

from viscript import catalog, config
from viscript.errors import BadConfig, NotFound


def parse(folder: Path, text: str) -> config.Config:
    return config.parse(text.encode(), folder / "config.yaml")


def command(folder: Path, entry: str, *arguments: str) -> catalog.Command:
    found = parse(folder, f"apps: {{a: {entry}}}")
    return catalog.command(found, found.apps["a"], arguments, os.environ["PATH"])


def test_arguments_are_added_in_order_and_keep_their_case(tmp_path):
    entry = "{path: /bin/sh, default_args: [-x, A], args: [B]}"
    assert command(tmp_path, entry, "C", "--d").argv == ("/bin/sh", "-x", "A", "B", "C", "--d")


def test_python_modules_are_run_without_the_cwd_on_the_path(tmp_path):
    found = command(tmp_path, "{path: 'python:apps.x'}", "1")
    assert found.argv == (sys.executable, "-P", "-m", "apps.x", "1")
    with pytest.raises(BadConfig, match="not the name of a module"):
        command(tmp_path, "{path: 'python:-c'}")


def test_relative_paths_are_relative_to_the_file(tmp_path):
    program = tmp_path / "bin" / "run"
    program.parent.mkdir()
    with pytest.raises(BadConfig, match=r"config\.yaml:1: apps\.a\.path: .*bin/run does not exist"):
        command(tmp_path, "{path: bin/run}")
    program.touch()
    with pytest.raises(BadConfig, match=f"is not executable; run: chmod [+]x {program}"):
        command(tmp_path, "{path: bin/run}")
    program.chmod(0o755)
    assert command(tmp_path, "{path: bin/run}").argv == (str(program),)
    with pytest.raises(BadConfig, match="is a folder, not a program"):
        command(tmp_path, "{path: ./bin}")


def test_names_without_a_slash_are_searched_in_path_then_beside_the_file(tmp_path):
    assert Path(command(tmp_path, "{path: sh}").argv[0]).is_absolute()
    with pytest.raises(BadConfig, match="on no folder of PATH"):
        command(tmp_path, "{path: no-such-program}")
    (tmp_path / "no-such-program").touch(mode=0o755)
    assert command(tmp_path, "{path: no-such-program}").argv == (str(tmp_path / "no-such-program"),)


def test_the_working_folder_must_be_there(tmp_path):
    assert command(tmp_path, "{path: sh}").cwd is None
    assert command(tmp_path, "{path: sh, cwd: .}").cwd == str(tmp_path)
    with pytest.raises(BadConfig, match=r"apps\.a\.cwd: .*gone is not a folder"):
        command(tmp_path, "{path: sh, cwd: gone}")


def test_apps_are_found_by_name_and_alias(tmp_path):
    found = parse(tmp_path, "apps: {socks: {path: x, short: [so]}, node: {path: y}}")
    assert catalog.find(found, "socks") is catalog.find(found, "so")
    with pytest.raises(NotFound, match=r"no app 'nod' in .*; did you mean 'node'"):
        catalog.find(found, "nod")
    with pytest.raises(NotFound, match="see: viscript apps"):
        catalog.find(found, "zzzz")


def test_apps_come_after_what_they_need(tmp_path):
    found = parse(
        tmp_path, "apps: {c: {path: x, after: [b]}, b: {path: x, after: [a]}, a: {path: x}}"
    )
    assert [app.name for app in catalog.order(found.apps)] == ["a", "b", "c"]
