"""Completion in a real zsh and a real fish."""

import pytest

from tests.support.shells import PROMPT, User, listed, typed


@pytest.fixture
def user(tmp_path) -> User:
    return User(tmp_path)


def test_zsh_completes_from_what_was_installed(user):
    (user.folder / ".zshrc").write_text(f"PS1='{PROMPT}'\nunsetopt beep\nZLE_RPROMPT_INDENT=0\n")
    user.viscript("completion", "install", "zsh")
    with user.shell("zsh", "-i") as zsh:
        typed(zsh, "viscript stat", "viscript status")
        typed(zsh, "viscript sd we", "viscript sd web")
        typed(zsh, "viscript sd @fr", "viscript sd @front")
        typed(zsh, "viscript sd alpha:w", "viscript sd alpha:web")
        typed(zsh, "viscript sd --dry", "viscript sd --dry-run")
        text = listed(zsh, "viscript start ", "worker", "Serves pages.")
        assert "short for web" in text


def test_fish_completes_from_what_was_installed(user):
    config = user.folder / ".config/fish/config.fish"
    config.parent.mkdir(parents=True)
    config.write_text(f"function fish_prompt; echo -n '{PROMPT}'; end\nset -g fish_greeting\n")
    user.viscript("completion", "install", "fish")
    with user.shell("fish", "-i") as fish:
        typed(fish, "viscript stat", "viscript status")
        typed(fish, "viscript sd we", "viscript sd web")
        typed(fish, "viscript sd @fr", "viscript sd @front")
        typed(fish, "viscript sd --dry", "viscript sd --dry-run")
        listed(fish, "viscript start ", "worker", "Serves pages.")
