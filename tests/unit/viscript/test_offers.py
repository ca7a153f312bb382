"""What is offered for the word before the cursor."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.shells import SNAPSHOT
from viscript import completing
from viscript.completion import offers, script
from viscript.surface import registry, tree

TREE = {**registry.tree(), "options": tree.EVERYWHERE}


def words(*typed: str, snapshot=SNAPSHOT) -> list[str]:
    return [word for word, _ in offers.offers(typed, TREE, snapshot)]


def test_commands_come_first():
    assert words("sta") == ["start", "status"]
    assert "la" in words("")
    assert words("--ho") == ["--home"]
    assert words("--home", "x", "sta") == ["start", "status"]


def test_names_come_where_they_belong():
    assert words("start", "w") == ["web", "worker", "w"]
    assert words("start", "web", "") == []  # the app's own
    assert words("start", "web", "--js") == []
    assert words("sd", "1") == ["14", "15"]
    assert words("sd", "web", "we") == []  # it is there already
    assert words("logs", "w") == ["web", "worker"]
    assert words("job", "show", "") == ["7"]


def test_selectors_grow():
    assert words("sd", "@") == ["@back", "@front"]
    assert words("sd", "host=") == ["host=alpha", "host=beta"]
    assert words("sd", "beta:") == ["beta:worker"]
    assert words("sd", "state=run") == ["state=running"]
    assert words("sd", "group=f") == ["group=front"]


def test_the_case_of_what_is_typed_does_not_matter():
    assert words("sd", "WEB") == ["web"]


def test_nodes_are_offered_by_the_users_names_and_their_own():
    known = {"nodes": ["alpha", "beta", "office"]}
    assert words("node", "ping", "", snapshot=known) == ["alpha", "beta", "office"]
    assert words("node", "tr") == ["trace"]


def test_every_kind_of_the_registry_is_known():
    offered = {
        "app",
        "launch",
        "select",
        "job",
        "host",
        "role",
        "signal",
        "file",
        "command",
        "node",
    }
    kinds = {kind for entry in registry.entries() for kind in entry.kinds}
    assert kinds <= offered | {"key", "text"}


def test_the_whole_tree_has_every_command_and_its_options():
    whole = tree.build()
    json.dumps(whole)
    for entry in registry.entries():
        node = whole["subs"][entry.name]
        assert "--help" in node["options"], entry.name
        assert set(entry.verbs) == set(node.get("subs", {})) or entry.name == "bus", entry.name
    assert whole["subs"]["bus"]["subs"]["topics"]["subs"]["add"]["options"]


ANYTHING = st.none() | st.integers() | st.text(max_size=8) | st.just([])
ROW = st.fixed_dictionaries(
    {},
    optional={
        "name": ANYTHING, "help": ANYTHING, "id": ANYTHING, "app": ANYTHING, "state": ANYTHING,
        "text": ANYTHING, "host": ANYTHING, "groups": st.lists(ANYTHING, max_size=2) | ANYTHING,
    },
)  # fmt: skip
ROWS = st.lists(ROW | ANYTHING, max_size=3) | ANYTHING
SNAPSHOTS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("apps", "launches", "hosts", "jobs"), ROWS)
)
COMMANDS = st.sampled_from([entry.name for entry in registry.entries()])


@given(SNAPSHOTS, COMMANDS, st.sampled_from(["", "@", "a:", "group="]))
def test_whatever_a_snapshot_holds_nothing_dangerous_is_offered(snapshot, command, current):
    for word, text in offers.offers([command, current], TREE, snapshot):
        assert not set(word) & set(" \t\n;&|<>$`\\\"'(){}!#~?")
        assert text.isprintable()


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        ("viscript sd we", ["viscript", "sd", "we"]),
        ("viscript sd ", ["viscript", "sd", ""]),
        ("viscript 'a b' c", ["viscript", "a b", "c"]),
        ('viscript "a\\"b', ["viscript", 'a"b']),
        ("viscript a\\ b", ["viscript", "a b"]),
        ("viscript 'un", ["viscript", "un"]),
        ("viscript ''", ["viscript", ""]),
        ("", [""]),
    ],
)
def test_a_line_of_bash_is_split_as_bash_does(line, typed):
    assert completing.split(line) == typed


def test_bash_gets_only_what_comes_after_its_word_breaks():
    found = [("beta:worker", ""), ("beta:web", "")]
    assert completing.for_bash(found, "beta:w", "\"'@><=;|&(:") == ["worker", "web"]
    assert completing.for_bash([("@front", "")], "@f", "\"'@><=;|&(:") == ["@front"]
    assert completing.for_bash([("state=x", "")], "state=", "") == ["state=x"]
    assert completing.for_bash([(":files", "")], "a=b", "=:") == [":files"]


def test_a_start_file_gets_one_block_whatever_was_there():
    once = script.with_block("mine\n", "/a b/script")
    assert once.startswith("mine\n\n# viscript completion: begin\n. '/a b/script'\n")
    assert script.with_block(once, "/c") == once.replace("'/a b/script'", "/c")
    assert script.with_block("", "/c").startswith("# viscript")
    torn = "# viscript completion: begin\nrest of mine\n"
    assert "rest of mine" in script.with_block(torn, "/c")
