"""The broker's configuration file, and the lines of its log."""

import json
import logging
import re
from pathlib import Path

import pytest

from bus import logs
from bus.settings import BrokerSettings, SettingsError, load, save

GOOD = {"endpoint": "tcp://127.0.0.1:7600", "key_file": "k", "access_file": "a"}


def test_what_was_saved_loads_and_paths_are_relative_to_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "broker.json"
    settings = BrokerSettings("tcp://127.0.0.1:7600", "broker.key", "/etc/access.json")
    save(path, settings)
    assert load(path) == settings
    files = settings.files(tmp_path)
    assert files.key_file == tmp_path / "broker.key"
    assert files.access_file == Path("/etc/access.json")
    assert files.topics_file == tmp_path / "topics.db"
    elsewhere = BrokerSettings("tcp://127.0.0.1:7600", "k", "a", topics_file="/disk/t.db")
    assert elsewhere.files(tmp_path).topics_file == Path("/disk/t.db")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "truncated"),
        (b"{,}", "malformed"),
        (b"[]", "Expected `object`"),
        (json.dumps({**GOOD, "endpont": 1}).encode(), "unknown field `endpont`"),
        (json.dumps({"endpoint": "x"}).encode(), "missing required field `key_file`"),
        (json.dumps({**GOOD, "endpoint": 7600}).encode(), "Expected `str`, got `int`"),
        (b"\xff", "."),
        (b"[" * 100_000, "."),
    ],
)
def test_a_broken_file_is_told_with_its_path_and_what_is_wrong(
    tmp_path: Path, text: bytes, problem: str
) -> None:
    path = tmp_path / "broker.json"
    path.write_bytes(text)
    with pytest.raises(SettingsError, match=problem) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_file_is_told_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"bus-broker init {tmp_path}"):
        load(tmp_path / "broker.json")


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("address", "problem"),
    [("0.0.0.0:7601", "0.0.0.0 is not a loopback address"), ("192.168.1.5:80", "192.168.1.5 is not a"),
     ("[::]:7601", "is not a loopback address"), ("localhost:7601", "does not begin with an address"),
     ("127.0.0.1", "has no port"), ("127.0.0.1:x", "has no port"), ("127.0.0.1:65536", "has no port"),
     ("127.0.0.1:-1", "has no port"), (":7601", "does not begin with an address"),
     ("127.0.0.1:\u0663", "has no port")],
)  # fmt: skip
def test_a_monitor_that_others_could_reach_or_nobody_is_told_with_the_way_out(
    tmp_path: Path, address: str, problem: str
) -> None:
    path = tmp_path / "broker.json"
    path.write_text(json.dumps({**GOOD, "monitor": address}))
    with pytest.raises(SettingsError, match=f"monitor: .*{re.escape(problem)}.*127.0.0.1:PORT"):
        load(path)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("127.0.0.1:7601", ("127.0.0.1", 7601)),
        ("127.1.2.3:0", ("127.1.2.3", 0)),
        ("[::1]:1", ("::1", 1)),
    ],
)
def test_a_monitor_on_loopback_is_kept(
    tmp_path: Path, address: str, found: tuple[str, int]
) -> None:
    settings = BrokerSettings("tcp://127.0.0.1:7600", "k", "a", monitor=address)
    save(tmp_path / "broker.json", settings)
    assert load(tmp_path / "broker.json").files(tmp_path).monitor == found


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("bus.broker", logging.INFO, "f", 1, message, None, None)
    made.fields = fields
    return made


def test_an_event_is_one_line_for_people() -> None:
    line = logs._Lines().format(record("listening", endpoint="tcp://h:1", pid=7))
    assert line.endswith(" info bus.broker: listening endpoint=tcp://h:1 pid=7")
    assert "\n" not in line


def test_an_event_is_one_object_for_machines() -> None:
    line = logs._Json().format(record('say "hi"\nthere', path=Path("/x")))
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["event"], entry["level"], entry["path"]) == ('say "hi"\nthere', "info", "/x")
