"""Completion by the tab key in a real bash, and the daemon that keeps its names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.instance import instance, until
from tests.support.shells import PROMPT, User, listed, typed
from viscript import completing

BASH = ("bash", "--noprofile", "-i")


@pytest.fixture(scope="module")
def user(tmp_path_factory) -> User:
    made = User(tmp_path_factory.mktemp("user"))
    (made.folder / ".bashrc").write_text(f"PS1='{PROMPT}'\nbind 'set bell-style none'\n")
    made.viscript("completion", "install", "bash")
    # The folder of bash-completion is read only where that is installed; here it is read for certain.
    script = made.folder / ".local/share/bash-completion/completions/viscript"
    with (made.folder / ".bashrc").open("a") as file:
        file.write(f". {script}\n")
    return made


def test_bash_completes_commands_names_ids_groups_and_hosts(user):
    with user.shell(*BASH) as bash:
        typed(bash, "viscript stat", "viscript status")
        typed(bash, "viscript sd we", "viscript sd web")
        typed(bash, "viscript sd 15 1", "viscript sd 15 14")
        typed(bash, "viscript sd @fr", "viscript sd @front")
        typed(bash, "viscript sd alpha:w", "viscript sd alpha:web")
        typed(bash, "viscript sd state=fa", "viscript sd state=failed")
        typed(bash, "viscript job show ", "viscript job show 7")
        typed(bash, "viscript start wor", "viscript start worker")
        typed(bash, "viscript help wor", "viscript help worker")
        typed(bash, "viscript 'res", "viscript 'restart'")


def test_bash_lists_what_is_possible(user):
    with user.shell(*BASH) as bash:
        listed(bash, "viscript sd ", "web", "worker", "14", "15", "@back", "beta:", "state=")


def test_bash_completes_options_and_their_values(user):
    with user.shell(*BASH) as bash:
        typed(bash, "viscript sd --dry", "viscript sd --dry-run")
        typed(bash, "viscript kill --signal HU", "viscript kill --signal HUP")
        typed(bash, "viscript la --js", "viscript la --json")
        typed(bash, "viscript bus top", "viscript bus topics")


def test_bash_completes_files_and_folders_where_these_belong(user):
    (user.folder / "somewhere.yaml").touch()
    (user.folder / "some-folder").mkdir(exist_ok=True)
    with user.shell(*BASH, start=["cd"]) as bash:
        typed(bash, "viscript apps --config somew", "viscript apps --config somewhere.yaml")
        typed(bash, "viscript --home some-", "viscript --home some-folder/")


def test_what_only_a_broker_knows_is_asked_of_it(tmp_path):
    user = User(tmp_path)
    with instance(tmp_path / "h") as made:
        made.run("bus", "topics", "add", "orders", "app.orders.>")
        home = ["--home", str(made.root)]
        assert complete(user, "fish", *home, "bus", "topics", "read", "") == ["orders"]
        assert complete(user, "zsh", *home, "bus", "topics", "read", "or") == ["orders"]
    assert complete(user, "fish", *home, "bus", "topics", "read", "") == []
    assert "install-completion" not in user.viscript("--help")


def test_a_hostile_name_is_never_offered(tmp_path):
    user = User(tmp_path)
    names = ["x;reboot", "$(id)", "`id`", "a b", "a\x1b[2J", "..\n", "fine"]
    snapshot = user.folder / ".local/state/viscript/state/completion.json"
    apps = [{"name": name, "help": "\x1b[31mred"} for name in names]
    snapshot.write_text(json.dumps({"apps": apps, "launches": 7, "hosts": {"a": 1}}))
    assert complete(user, "fish", "start", "") == ["fine\t [31mred"]
    assert "\x1b" not in "".join(complete(user, "zsh", "sd", ""))


def test_a_damaged_snapshot_offers_the_commands_all_the_same(tmp_path):
    user = User(tmp_path)
    snapshot = user.folder / ".local/state/viscript/state/completion.json"
    for text in ("{", "[]", "\x00" * 99, '{"apps": {"name": 1}}', "[" * 100_000):
        snapshot.write_text(text)
        assert complete(user, "bash", "viscript stat", "=:") == ["status"]
        assert complete(user, "bash", "viscript start ", "=:") == []


def test_completion_imports_neither_the_commands_nor_the_bus(tmp_path):
    user = User(tmp_path)
    user.viscript("completion", "bash")
    done = run(user, "-X", "importtime", completing.__file__, "zsh", "sd", "")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {
        "typer",
        "zmq",
        "msgspec",
        "yaml",
        "asyncio",
        "socket",
        "pathlib",
        "typing",
        "dataclasses",
    }
    assert not loaded & heavy
    assert "web\t" in done.stdout


def test_without_the_written_commands_the_registry_answers_and_has_them_written(tmp_path):
    user = User(tmp_path)
    assert complete(user, "bash", "viscript resta", "=:") == ["restart"]
    written = user.folder / ".cache/viscript/commands.json"
    until(written.exists)
    assert "--dry-run" in complete(user, "bash", "viscript sd --d", "=:")


def test_what_is_not_ours_stays_when_completion_is_installed(tmp_path):
    user = User(tmp_path)
    start = user.folder / ".zshrc"
    start.write_text("# mine\nalias x=y")
    start.chmod(0o600)
    for _ in range(2):
        user.viscript("completion", "install", "zsh")
    text = start.read_text()
    assert text.startswith("# mine\nalias x=y\n")
    assert text.count("viscript completion: begin") == 1
    assert start.stat().st_mode & 0o777 == 0o600
    found = json.loads(user.viscript("completion", "install", "fish", "--json"))
    assert found["files"] == [str(user.folder / ".config/fish/completions/viscript.fish")]


def test_a_shell_that_is_not_known_is_refused(tmp_path):
    user = User(tmp_path)
    done = run(user, "-P", "-m", "viscript.cli", "completion", "install", "fsh")
    assert done.returncode == 2
    assert "did you mean 'fish'?" in done.stderr


def test_the_daemon_keeps_the_names_of_what_runs(tmp_path):
    with instance(tmp_path / "h") as made:
        file = made.root / "state/completion.json"
        number = made.start("sleeper")["id"]
        until(lambda: number in [x["id"] for x in json.loads(file.read_text())["launches"]])
        assert file.stat().st_mode & 0o777 == 0o600
        assert "citizen" in [x["name"] for x in json.loads(file.read_text())["apps"]]
        made.run("sd", str(number))
        until(lambda: number not in [x["id"] for x in json.loads(file.read_text())["launches"]])
        made.run("down")
        assert json.loads(file.read_text())["launches"] == []
        made.configure({"newer": {"path": "sleep"}})
        made.run("apps")
        assert [x["name"] for x in json.loads(file.read_text())["apps"]] == ["newer"]


def complete(user: User, *arguments: str) -> list[str]:
    return run(user, completing.__file__, *arguments).stdout.splitlines()


def run(user: User, *arguments: str) -> subprocess.CompletedProcess:
    isolated = () if arguments[0] == "-P" else ("-I", "-S")
    return subprocess.run(
        [sys.executable, *isolated, *arguments], env=user.environment, capture_output=True, text=True,
        timeout=50, check=False, cwd=Path("/"),
    )  # fmt: skip
