"""The lines of the tracker's TCP address."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.tracker import lines
from apps.tracker.lines import BadLine, Request
from nodes.offers import Announcement, Place, Statement


def test_questions_and_announcements_are_read() -> None:
    assert lines.read(b"{}\n") == Request()
    assert lines.read(b'{"find": "socks"}\n') == Request(find="socks")
    after = {"key": "k" * 40, "port": 7}
    assert lines.read(json.dumps({"after": after}).encode()) == Request(after=Place("k" * 40, 7))
    told = {"key": "k" * 40, "port": 7, "statement": "gA==", "signature": "A" * 86 + "=="}
    read = lines.read(json.dumps({"announce": told}).encode())
    assert read.announce == Announcement("k" * 40, 7, b"\x80", bytes(64))


def test_an_answer_is_one_line_with_all_that_proves_it() -> None:
    told = Announcement("k" * 40, 7, b"\x80", bytes(64)), Statement("vpn", {"a": "b\n"}, 5000, 30)
    answer = lines.offers([told], more=True)
    assert answer.count(b"\n") == 1
    assert json.loads(answer) == {
        "offers": [
            {
                "type": "vpn", "key": "k" * 40, "port": 7, "labels": {"a": "b\n"}, "expires": 35.0,
                "statement": "gA==", "signature": "A" * 86 + "==",
            }
        ],
        "more": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"GET / HTTP/1.1\r\n", b"[]", b'{"finds": "x"}', b'{"find": 1}']
)
def test_other_lines_are_told_what_is_wrong(line: bytes) -> None:
    with pytest.raises(BadLine):
        lines.read(line)


@given(st.binary(max_size=200))
def test_no_line_breaks_it(line: bytes) -> None:
    with contextlib.suppress(BadLine):
        lines.read(line)
