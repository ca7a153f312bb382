"""`viscript bus`: help, what it imports, and how bodies and keys are read and shown. Needs no broker."""

import io
import json
import subprocess
import sys

import msgspec
import pytest

from bus.identity import to_hex
from bus.signals import Rules
from viscript import cli, output, words
from viscript.commands.bus import VERBS, bodies, keys, typed
from viscript.errors import BadUsage, NotFound

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
GROUPS = {
    "topics": ["list", "add", "rm", "read"],
    "consumers": ["list", "add", "rm", "next", "pull"],
    "keys": ["list", "allow", "forbid", "pending", "open", "accept", "reject"],
    "context": ["list", "add", "use", "show", "rm"],
}
COMMANDS = [[v] for v in VERBS if v not in GROUPS] + [[g, v] for g in GROUPS for v in GROUPS[g]]


def shown(capsys, *arguments: str) -> str:
    assert cli.run([*arguments]) == 0
    return capsys.readouterr().out


def test_the_help_names_every_verb_in_its_order_with_a_line_of_its_own(capsys):
    lines = shown(capsys, "bus", "--help").partition("Commands:\n")[2].splitlines()
    told = [line.split(maxsplit=1) for line in lines if line.startswith("  ")]
    assert [verb for verb, _ in told] == list(VERBS)
    assert not [text for _, text in told if text.endswith("...")]
    assert "bus" in shown(capsys, "--help")


def test_without_a_verb_the_help_is_shown_and_it_is_code_2(capsys):
    for arguments in (["bus"], ["bus", "topics"], []):
        assert cli.run(arguments) == 2
        shown = capsys.readouterr()
        assert shown.err.startswith(" ".join(["Usage: viscript", *arguments]))
        assert shown.out == ""
    assert cli.run(["bus", "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["error"] == "usage"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_takes_context_home_and_json(capsys, command):
    text = shown(capsys, "bus", *command, "--help")
    assert text.startswith(f"Usage: viscript bus {' '.join(command)}")
    for option in ("--context NAME", "--home DIR", "--json"):
        assert option in text


@pytest.mark.parametrize("verb", [v for v in VERBS if v not in GROUPS])
def test_every_verb_shows_examples_of_itself(capsys, verb):
    examples = shown(capsys, "bus", verb, "--help").partition("Examples:\n")[2]
    assert f"viscript bus {verb}" in examples


def loaded(*arguments: str) -> set[str]:
    script = f"import sys\nfrom viscript.cli import run\nrun({[*arguments]!r})\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    return set(done.stdout.splitlines()[-1].split())


def test_help_costs_no_bus_and_a_plain_command_no_verb():
    heavy = {
        "asyncio",
        "zmq",
        "msgspec",
        "msgpack",
        "sqlite3",
        "uvloop",
        "platformdirs",
        "rich",
        "psutil",
    }
    assert not loaded("bus", "--help") & heavy
    assert not loaded("bus", "pub", "--help") & heavy
    assert not {name for name in loaded("--version") if name.startswith("viscript.commands")}


def test_a_completion_of_verbs_costs_no_bus():
    script = "import sys, viscript.cli\ntry: viscript.cli.run([])\nfinally: print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False, timeout=30,
        env={"COMP_WORDS": "viscript bus to", "COMP_CWORD": "2", "_VISCRIPT_COMPLETE": "complete_bash"},
    )  # fmt: skip
    *words, modules = done.stdout.splitlines()
    assert words == ["topics", "token"]
    assert not set(modules.split()) & {"asyncio", "zmq", "msgspec"}


# Bodies.


def test_a_body_is_the_argument_or_standard_input_or_a_file(tmp_path, monkeypatch):
    assert bodies.given(None) == b""
    assert bodies.given("ü") == "ü".encode()
    (tmp_path / "f").write_bytes(b"\x00\xff")
    assert bodies.given(None, tmp_path / "f") == b"\x00\xff"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\x00in")))
    assert bodies.given("-") == b"\x00in"
    with pytest.raises(BadUsage, match="two bodies"):
        bodies.given("x", tmp_path / "f")
    with pytest.raises(NotFound):
        bodies.given(None, tmp_path / "missing")
    with pytest.raises(BadUsage, match="folder"):
        bodies.given(None, tmp_path)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", ""),
        ("grün\tblau\n".encode(), "grün\\tblau\\n"),
        (b"\x1b]0;title\x07\x1b[2Jtext\x9b", "(19 bytes, not text; --raw or --json show them)"),
        (b"\x1b]0;title\x07\x1b[2Jtext", "text"),
        (msgspec.msgpack.encode({"a": [1, "\x1b[2J"]}), '{"a":[1,"\\u001b[2J"]}'),
        (b"\x81\xa1a", "(3 bytes, not text; --raw or --json show them)"),
        (b"\x91" * 100_000, "(100000 bytes, not text; --raw or --json show them)"),
        (msgspec.msgpack.encode({1: b"x"}), '{"1":"eA=="}'),
        (b"\xff\xfe", "(2 bytes, not text; --raw or --json show them)"),
    ],
)
def test_a_body_is_shown_in_one_line_that_steers_nothing(body, shown):
    assert bodies.readable(body) == shown


def test_a_long_body_is_cut_for_people_but_not_for_programs():
    body = b"x" * 100_000
    assert bodies.readable(body).endswith("… (100000 bytes)")
    assert len(bodies.readable(body)) < 5000
    assert bodies.fields(body) == {"text": body.decode()}
    assert bodies.fields(b"\xff") == {"base64": "/w=="}


# Keys and rules.


def test_a_key_may_be_typed_in_z85_or_hex():
    assert typed.key(KEY) == KEY
    assert typed.key(to_hex(KEY)) == KEY
    assert typed.key(to_hex(KEY).upper()) == KEY
    assert typed.key(typed.for_shell(KEY)) == KEY
    for wrong in ("", KEY[:-1], KEY + "x", "ab" * 31, "zz" * 32, "#" * 40):
        with pytest.raises(BadUsage):
            typed.key(wrong)


def test_rules_are_verb_and_pattern():
    assert keys.rules([]) is None
    found = keys.rules(["publish=a.>", "publish=b", "serve=c.*"])
    assert found == Rules(publish=["a.>", "b"], serve=["c.*"])
    for wrong in ("publish", "publish=", "=a", "read=a", "publish=a..b", "publish=>.a"):
        with pytest.raises(BadUsage, match="VERB=PATTERN"):
            keys.rules([wrong])


# Output.


def test_a_cell_of_a_table_is_one_line_whatever_is_in_it(capsys):
    output.table(("A", "B"), [("x\ny\x1b[2J", "z")])
    assert capsys.readouterr().out == "A     B\nx\\ny  z\n"


def test_a_warning_is_a_line_or_with_json_an_object(capsys, monkeypatch):
    from viscript import options

    output.warn("a\nb\x1b[2J")
    monkeypatch.setattr(options, "given", options.Given(json=True))
    output.warn("a\nb")
    first, second = capsys.readouterr().err.splitlines()
    assert first == "warning: a\\nb"
    assert json.loads(second) == {"warning": "a\nb"}


def test_json_acts_on_no_terminal_and_loses_nothing(capsys):
    text = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x2066, 0x1F600]))
    for show in (output.document, output.line):
        show({"text": text})
        raw = capsys.readouterr().out
        assert json.loads(raw) == {"text": text}
        assert words.clean(raw) == raw


def test_progress_says_nothing_where_nobody_looks(capsys):
    progress = output.Progress()
    progress.tell("working")
    progress.end()
    assert capsys.readouterr().err == ""
