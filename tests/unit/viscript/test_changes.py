"""Which files of a folder change."""

import select

from viscript.changes import Changes


def test_what_is_written_made_or_renamed_is_named_and_nothing_else(tmp_path):
    for name in ("still", "written", "old"):
        (tmp_path / name).touch()
    with Changes(tmp_path) as changes:
        assert changes.gathered() == set()
        with (tmp_path / "written").open("a") as file:
            file.write("more")
        (tmp_path / "made").touch()
        (tmp_path / "old").rename(tmp_path / "new")
        assert select.select([changes.fd], [], [], 10)[0]
        assert changes.gathered() == {"written", "made", "new"}
        assert changes.gathered() == set()


def test_where_there_is_nothing_to_watch_anything_may_have_changed(tmp_path):
    with Changes(tmp_path / "nothing") as changes:
        assert changes.fd is None
        assert changes.gathered() is None
