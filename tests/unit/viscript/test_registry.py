"""The one table of commands: it holds together, and says of roles what the daemon does."""

import importlib

import typer

from viscript.commands.served import TABLE
from viscript.surface import registry
from viscript.surface.group import build


def test_no_name_stands_for_two_commands():
    names = [name for entry in registry.entries() for name in entry.names]
    assert len(names) == len(set(names))
    assert all(registry.find(name) for name in names)
    assert registry.find("nosuch") is None


def test_every_command_can_be_built_and_explains_itself():
    for entry in registry.entries():
        command = build(entry, entry.name)
        assert command.name == entry.name
        assert command.help, entry.name
        assert entry.help[-1] in ".?", entry.name


def test_the_verbs_of_groups_are_those_that_are_listed():
    for entry in registry.entries():
        module, _, attribute = entry.where.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if isinstance(found, typer.Typer) and entry.name != "bus":
            group = typer.main.get_group(found)
            assert list(group.commands) == list(entry.verbs), entry.name


def test_the_role_that_is_explained_is_the_one_that_is_needed():
    roles = {served.module.__name__.rpartition(".")[2]: str(served.role) for served in TABLE}
    del roles["find"]  # what `ping` asks; the command of this name asks the tracker
    for entry in registry.entries():
        if entry.name in roles:
            assert entry.role == roles[entry.name], entry.name


def test_every_subject_is_answered_by_one_command():
    subjects = [served.module.SUBJECT for served in TABLE]
    assert len(subjects) == len(set(subjects))
    assert all(subject.startswith("viscript.") for subject in subjects)
    for served in TABLE:
        assert callable(served.module.handle)
        assert served.module.Request
