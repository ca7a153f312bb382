"""What a line at the prompt says, and what the prompt says to it."""

import pytest

from viscript.errors import BadUsage
from viscript.shell import lines
from viscript.surface import registry

TREE = lines.with_ends(registry.tree())


def test_a_line_is_what_a_shell_would_make_of_it():
    assert lines.words("start sh 'echo a; sleep 1'") == ["start", "sh", "echo a; sleep 1"]
    assert lines.words("  ") == []
    assert lines.words("viscript la") == ["la"]
    with pytest.raises(BadUsage, match="no closing quotation: sd 'x"):
        lines.words("sd 'x")


def test_up_leaves_everything_to_the_daemon():
    assert lines.as_typed(["up"]) == ["up", "--detach"]
    assert lines.as_typed(["up", "-d"]) == ["up", "-d"]
    assert lines.as_typed(["up", "--help"]) == ["up", "--help"]
    assert lines.as_typed(["la"]) == ["la"]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ([""], "Tab completes, help explains, exit or Ctrl-D leaves"),
        (["s"], "s APP - Start an app; what follows APP goes to it."),
        (["sd", ""], "sd ID|APP|SELECTOR... - Shut down, and wait for the end."),
        (["job", ""], "job ls|show|cancel - What was asked for, and what has become of it."),
        (["statsu", ""], "no command 'statsu'; did you mean 'status'?"),
        (["exit", ""], "exit - Leave the prompt; what runs goes on."),
    ],
)
def test_a_hint_explains_what_is_being_typed(typed, says):
    assert lines.hint(typed, TREE) == says


def test_a_summary_counts_states():
    launches = [
        {"state": "running"},
        {"state": "running"},
        {"state": "failed"},
        7,
        {"state": "\x1b["},
    ]
    assert lines.summary({"launches": launches}) == "1 failed, 2 running"
    assert lines.summary({"launches": 3}) == ""
