"""The user's own names for keys, and the file they are in."""

import pytest

from bus.sockets import new_keypair
from viscript.addresses import Addresses
from viscript.errors import BadConfig, BadUsage, Conflict, NotFound

ONE, OTHER = (new_keypair().public for _ in range(2))


def test_what_was_named_is_there_the_next_time(tmp_path):
    Addresses(tmp_path / "new" / "addresses.json").set("office", ONE)
    found = Addresses(tmp_path / "new" / "addresses.json")
    assert (found.key("office"), found.name(ONE), found.key("other")) == (ONE, "office", None)
    found.remove("office")
    assert Addresses(found.path).keys == {}


def test_a_name_is_not_given_to_another_key_unasked(tmp_path):
    found = Addresses(tmp_path / "addresses.json")
    found.set("office", ONE)
    found.set("office", ONE)
    with pytest.raises(Conflict, match="--force"):
        found.set("office", OTHER)
    found.set("office", OTHER, replace=True)
    assert found.key("office") == OTHER


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 65, "k" * 40, "-x", "\x1b[1m"])
def test_what_could_be_read_as_something_else_is_no_name(tmp_path, name):
    with pytest.raises(BadUsage, match="not a name"):
        Addresses(tmp_path / "addresses.json").set(name, ONE)


def test_a_name_that_is_not_there_cannot_be_removed(tmp_path):
    with pytest.raises(NotFound, match="viscript node name ls"):
        Addresses(tmp_path / "addresses.json").remove("office")


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": "no key"}'])
def test_a_file_that_cannot_be_understood_is_named(tmp_path, text):
    file = tmp_path / "addresses.json"
    file.write_text(text)
    with pytest.raises(BadConfig, match="mend or remove it") as caught:
        Addresses(file)
    assert str(file) in str(caught.value)
