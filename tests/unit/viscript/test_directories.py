"""Where a user's files belong, on each platform."""

import pytest

from viscript import directories
from viscript.directories import Directories


def test_linux_has_the_usual_folders():
    places = Directories({"HOME": "/u"}, "linux")
    assert places.config == "/u/.config/viscript"
    assert places.state == "/u/.local/state/viscript"
    assert places.cache == "/u/.cache/viscript"


def test_linux_follows_what_the_user_chose():
    chosen = {
        name: f"/x/{name}" for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")
    }
    places = Directories({"HOME": "/u", **chosen}, "linux")
    assert places.config == "/x/XDG_CONFIG_HOME/viscript"
    assert places.state == "/x/XDG_STATE_HOME/viscript"
    assert places.cache == "/x/XDG_CACHE_HOME/viscript"


@pytest.mark.parametrize("useless", ["", " ", "relative/path"])
def test_a_relative_choice_counts_as_none(useless):
    assert Directories({"HOME": "/u", "XDG_CACHE_HOME": useless}, "linux").cache == (
        "/u/.cache/viscript"
    )


def test_macos_has_its_own_folders():
    places = Directories({"HOME": "/Users/u", "XDG_STATE_HOME": "/x"}, "darwin")
    assert places.config == places.state == "/Users/u/Library/Application Support/viscript"
    assert places.cache == "/Users/u/Library/Caches/viscript"


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_shells_look_for_completion_in_their_places(platform):
    places = Directories({"HOME": "/u"}, platform)
    assert places.completion("bash") == "/u/.local/share/bash-completion/completions/viscript"
    assert places.completion("zsh") == "/u/.local/share/viscript/_viscript"
    assert places.completion("fish") == "/u/.config/fish/completions/viscript.fish"
    assert places.start_file("bash") == "/u/.bashrc"
    assert Directories({"HOME": "/u", "ZDOTDIR": "/z"}, platform).start_file("zsh") == "/z/.zshrc"


def test_the_home_is_the_option_or_the_variable_or_the_usual_one():
    assert directories.home("/a", {"VISCRIPT_HOME": "/b"}) == "/a"
    assert directories.home(None, {"VISCRIPT_HOME": "/b"}) == "/b"
    assert directories.home(None, {"HOME": "/u", "XDG_STATE_HOME": "/s"}) == "/s/viscript"
