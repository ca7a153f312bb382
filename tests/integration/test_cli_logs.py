"""`viscript logs`, without a daemon: files and a terminal."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from msgspec.structs import asdict

from tests.support.instance import Instance
from viscript.keeping.log import Log
from viscript.rules import LogRule


@pytest.fixture
def home(tmp_path):
    made = Instance(tmp_path / "h")
    (made.root / "logs").mkdir(mode=0o700)
    return made


def log(home: Instance, name: str, **rule: float) -> Log:
    return Log(str(home.root / "logs" / f"{name}.log"), asdict(LogRule(**rule)))


@pytest.fixture
def two(home, monkeypatch):
    """Two apps whose lines come in turn."""
    now = [time.time() - 1000]
    monkeypatch.setattr("viscript.keeping.log.time.time", lambda: now[0])
    web, db = log(home, "1-web"), log(home, "2-db")
    for number in range(5):
        web.write(b"web %d\n" % number)
        now[0] += 10
        db.write(b"db %d\n" % number)
        now[0] += 10
    return home


def test_several_are_merged_by_time_with_their_names(two):
    assert two.run("logs", "web", "db", "-n", "3").stdout.splitlines() == [
        "db.2  | db 3", "web.1 | web 4", "db.2  | db 4",
    ]  # fmt: skip
    assert two.run("logs", "*").stdout.count("\n") == 10
    found = two.ask("logs", "w*", "2")
    assert [(x["app"], x["id"], x["lines"][0]) for x in found] == [
        ("web", 1, "web 0"), ("db", 2, "db 0"),
    ]  # fmt: skip
    assert found[0]["times"] == sorted(found[0]["times"])


def test_since_and_grep_choose_lines(two):
    shown = two.run("logs", "web", "--since", "930s").stdout.splitlines()
    assert shown == ["web 4"]
    assert two.run("logs", "web", "--grep", "[13]$").stdout == "web 1\nweb 3\n"
    assert two.run("logs", "web", "--grep", "[13]$", "-n", "1").stdout == "web 3\n"
    assert two.run("logs", "web", "--since", "2099-01-01").stdout == ""


def test_what_cannot_be_meant_is_said(two):
    assert "'yesterday'" in two.run("logs", "web", "--since", "yesterday", code=2).stderr
    assert "'('" in two.run("logs", "web", "--grep", "(", code=2).stderr
    assert "did you mean 'web'" in two.run("logs", "wep", code=5).stderr
    assert "nothing runs" in two.run("logs", code=5).stderr
    assert two.run("logs", "((", code=2).stderr


def test_an_alias_is_understood(home):
    log(home, "3-sleeper").write(b"zzz\n")
    assert home.run("logs", "sl").stdout == "zzz\n"


def test_times_are_shown_when_asked_for(two):
    line = two.run("logs", "web", "-n", "1", "--times").stdout
    assert re.fullmatch(r"([\d-]+ )?\d\d:\d\d:\d\d web 4\n", line)


def test_following_several_goes_on_through_rotations_of_each(home):
    first, second = (
        log(home, "1-a", size=300, files=9),
        log(home, "2-b", size=300, files=9, gzip=True),
    )
    first.write(b"old\n")
    command = [sys.executable, "-P", "-m", "viscript.cli", "logs", "a", "b", "-f", "--json"]
    with subprocess.Popen(
        command, env=home.environment, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["text"] == "old"
        for number in range(150):
            first.write(b"a %d\n" % number)
            second.write(b"b %d\n" % number)
            second.pack()
        told: dict[str, list[str]] = {"a": [], "b": []}
        while sum(map(len, told.values())) < 300:
            one = json.loads(child.stdout.readline())
            told[one["app"]].append(one["text"])
        assert told == {x: [f"{x} {n}" for n in range(150)] for x in "ab"}
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 130


def test_a_question_without_a_line_end_is_shown_while_following(home):
    written = log(home, "1-a")
    written.write(b"name? ")
    command = [sys.executable, "-P", "-m", "viscript.cli", "logs", "a", "-f"]
    with subprocess.Popen(command, env=home.environment, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert os.read(child.stdout.fileno(), 100) == b"name? "
        written.write(b"Ann\n")
        assert os.read(child.stdout.fileno(), 100) == b"Ann\n"
        child.send_signal(signal.SIGINT)


def test_names_are_coloured_on_a_terminal_only(two):
    import pty

    parent, child = pty.openpty()
    environment = {**two.environment, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-P", "-m", "viscript.cli", "logs", "web", "db", "-n", "1"]
    subprocess.run(command, env=environment, stdout=child, check=True)
    assert b"\x1b[33mdb.2 \x1b[0m | db 4" in os.read(parent, 1000)
    subprocess.run(command, env={**environment, "TERM": "dumb"}, stdout=child, check=True)
    assert b"\x1b" not in os.read(parent, 1000)
    os.close(child)
    os.close(parent)
