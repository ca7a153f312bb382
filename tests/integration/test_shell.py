"""The prompt: `viscript` without a command in a real terminal."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.instance import Instance, instance, until
from tests.support.terminal import Terminal, terminal

VISCRIPT = (sys.executable, "-P", "-m", "viscript.cli")


@pytest.fixture(scope="module")
def up(tmp_path_factory) -> Iterator[Instance]:
    with instance(tmp_path_factory.mktemp("shell") / "h") as made:
        yield made


@contextmanager
def prompt(of: Instance, *arguments: str, **environment: str) -> Iterator[Terminal]:
    """The shell of a home, at its prompt."""
    cache = {"XDG_CACHE_HOME": str(of.root.parent / "cache")}
    variables = {**of.environment, "TERM": "xterm-256color", **cache, **environment}
    with terminal([*VISCRIPT, *arguments], variables) as made:
        made.until("viscript h>")
        yield made


def at_the_prompt(shell: Terminal) -> Terminal:
    """When the last line that is no hint is an empty prompt."""

    def waits(text: str) -> bool:
        shown = [line for line in text.splitlines() if line.strip() and not line.startswith(" ")]
        return bool(shown) and shown[-1].rstrip() == "viscript h>"

    shell.until(waits)
    return shell


def test_the_original_short_commands_work_until_exit(up):
    with prompt(up) as shell:
        shell.type("apps\r")
        shell.until("citizen")
        shell.type("s citizen\r")
        shell.until("citizen (ID")
        at_the_prompt(shell).type("la\r")
        shell.until("SINCE")
        at_the_prompt(shell).type("ping citizen\r")
        shell.until("ms")
        at_the_prompt(shell).type("ru citizen\r")
        shell.until("CPU")
        at_the_prompt(shell).type("help missing\r")
        shell.until("It is not there.")
        at_the_prompt(shell).type("sd citizen\r")
        until(lambda: "citizen" not in [x["app"] for x in up.ask("la") if x["ended"] is None])
        at_the_prompt(shell).type("exit\r")
        assert shell.ended() == 0


def test_errors_do_not_end_it(up):
    with prompt(up) as shell:
        shell.type("nonsense\r")
        shell.until("No such command 'nonsense'")
        at_the_prompt(shell).type("sd nobody\r")
        shell.until("error: ")
        at_the_prompt(shell).type("start 'sl\r")
        shell.until("no closing quotation")
        at_the_prompt(shell).type("sd\r")
        shell.until("Missing argument")
        at_the_prompt(shell).type("status\r")
        shell.until("broker")
        at_the_prompt(shell).type("quit\r")
        assert shell.ended() == 0


def test_ctrl_c_throws_the_line_away_and_ctrl_d_leaves(up):
    with prompt(up) as shell:
        shell.type("down and out")
        shell.until("down and out")
        shell.type("\x03")
        at_the_prompt(shell).type("\x04")
        assert shell.ended() == 0
    assert up.ask("status")["daemon"]["pid"]


def test_ctrl_c_ends_a_command_and_not_the_prompt(up):
    with prompt(up) as shell:
        shell.type("events -f\r")
        shell.until(" is running")
        shell.type("\x03")
        at_the_prompt(shell).type("viscript status\r")
        shell.until("broker")
        at_the_prompt(shell).type("\x04")
        assert shell.ended() == 0


def test_tab_completes_commands_names_and_ids(up):
    number = up.start("citizen")["id"]
    until(lambda: "citizen" in (up.root / "state/completion.json").read_text())
    names = up.root / "state/completion.json"
    until(lambda: number in [x["id"] for x in json.loads(names.read_text())["launches"]])
    with prompt(up) as shell:
        shell.type("resta\t")
        shell.until("viscript h> restart")
        shell.type(" citi\t")
        shell.until("restart citizen")
        shell.type("\x15history \t")
        shell.until(lambda text: f"{number}" in text and "state=" in text)
        shell.type("\x03\x04")
        assert shell.ended() == 0
    up.run("sd", "citizen")


def test_a_hint_explains_the_command_that_is_being_typed(up):
    with prompt(up) as shell:
        shell.type("scale ")
        shell.until("scale APP ... - Run so many instances of an app.")
        shell.type("\x15statsu ")
        shell.until("did you mean 'status'?")
        shell.type("\x03\x04")
        assert shell.ended() == 0


def test_events_appear_above_the_line_that_is_being_typed(up):
    with prompt(up) as shell:
        shell.type("la --a")
        shell.until("la --a")
        up.start("sh", "sleep 1000")
        text = shell.until(
            lambda text: "-> running" in text and "la --a" in text.rpartition("-> running")[2]
        )
        assert "sh (ID" in text.rpartition("-> running")[0]
        up.run("sd", "sh")
        shell.type("ll\r")
        shell.until("KEY")
        at_the_prompt(shell).type("\x04")
        assert shell.ended() == 0


def test_what_was_typed_is_there_the_next_time_and_only_for_its_owner(up):
    with prompt(up) as shell:
        shell.type("status\r")
        shell.until("broker")
        at_the_prompt(shell).type(" apps\r")
        shell.until("crasher")
        at_the_prompt(shell).type("\x04")
        shell.ended()
    history = up.root / "history"
    assert history.stat().st_mode & 0o777 == 0o600
    assert history.read_text().splitlines()[-1] == "status"
    with prompt(up) as shell:
        shell.type("\x1b[A")
        shell.until("viscript h> status")
        shell.type("\x03\x04")
        shell.ended()


def test_a_daemon_may_come_and_go_while_the_prompt_stays(tmp_path):
    with instance(tmp_path / "h", up=False) as made, prompt(made) as shell:
        shell.type("la\r")
        shell.until("no daemon is running")
        at_the_prompt(shell).type("up\r")
        shell.until("\nup: ", 40)
        at_the_prompt(shell)
        made.start("sh", "sleep 1000")
        # Heard from the moment on at which the prompt has found the daemon; nothing on the screen tells when.
        until(lambda: made.run("restart", "sh") and "-> running" in shell.text, 40)
        at_the_prompt(shell).type("down\r")
        until(lambda: made.run("status", code=None).returncode == 3, 40)
        at_the_prompt(shell).type("exit\r")
        assert shell.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(up, number):
    command = [*VISCRIPT, "--home", str(up.root)]
    script = (
        'stty -a > before; $0 "$@"; echo code $?; stty -a > after; cmp before after && echo same'
    )
    variables = {**up.environment, "TERM": "xterm"}
    with terminal(["sh", "-c", f"cd {up.root.parent}; {script}", *command], variables) as shell:
        shell.until("viscript h>")
        (child,) = subprocess.check_output(["pgrep", "-P", str(shell.pid)], text=True).split()
        os.kill(int(child), number)
        shell.until(f"code {128 + number}")
        shell.until("same")


def test_a_signal_ends_the_prompt_also_while_a_command_is_at_work(up):
    for command, shows in (("events -f", " is running"), ("top", "CPU %")):
        with prompt(up) as shell:
            shell.type(f"{command}\r")
            shell.until(shows)
            os.kill(shell.pid, signal.SIGTERM)
            assert shell.ended() == 128 + signal.SIGTERM


def test_a_dumb_terminal_has_a_prompt_without_any_drawing(up):
    with prompt(up, TERM="dumb") as shell:
        shell.type("status\r")
        shell.until("broker")
        assert b"\x1b" not in shell.raw
        at_the_prompt(shell).type("exit\r")
        assert shell.ended() == 0


def test_without_a_terminal_there_is_the_help(up):
    done = up.run(code=2, stdin=subprocess.DEVNULL)
    assert "Usage: viscript" in done.stderr + done.stdout


def test_a_hostile_history_file_does_not_keep_the_prompt_from_coming(tmp_path):
    made = Instance(tmp_path / "h")
    (made.root / "history").write_bytes(b"\xff\xfe\x00\x1b[2J\n" * 1000 + b"fine\n")
    with prompt(made) as shell:
        shell.type("\x1b[A")
        shell.until("viscript h> fine")
        shell.type("\x03\x04")
        assert shell.ended() == 0


def test_a_locale_without_utf_8_and_a_home_without_a_place_for_history_do_no_harm(tmp_path):
    made = Instance(tmp_path / "h")
    (made.root / "history").mkdir()  # so it can be neither read nor written
    with prompt(made, LC_ALL="C", PYTHONUTF8="0") as shell:
        shell.type("apps\r")
        shell.until("citizen")
        at_the_prompt(shell).type("help nöthing\r")
        shell.until("no app")
        at_the_prompt(shell).type("exit\r")
        assert shell.ended() == 0
