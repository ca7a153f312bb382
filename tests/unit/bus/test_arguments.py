"""Options that take a key, whatever it begins with."""

import pytest

from bus.arguments import ArgumentParser

KEY = "-:&:>ez]NI48fjMm+mJ:kN7OnEiEJxDl/I4</u1&"[:40]


@pytest.fixture
def parser() -> ArgumentParser:
    made = ArgumentParser()
    made.add_argument("--allow", action="append")
    made.add_argument("--udp", action="store_true")
    made.add_argument("-v", action="store_true")
    return made


@pytest.mark.parametrize("value", [KEY, f"{KEY}:80", f"{KEY},rate=1M"])
def test_a_key_that_begins_with_a_hyphen_belongs_to_the_option_before_it(
    parser: ArgumentParser, value: str
) -> None:
    assert parser.parse_args(["--udp", "--allow", value, "-v"]).allow == [value]
    assert parser.parse_args(["--allow", "beta", "--allow", value]).allow == ["beta", value]
    assert parser.parse_args([f"--allow={value}"]).allow == [value]


def test_the_command_line_of_the_process_is_read_in_the_same_way(
    parser: ArgumentParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["program", "--allow", KEY])
    assert parser.parse_args().allow == [KEY]


def test_options_are_options_still(
    parser: ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (["--allow", "--udp"], ["--allow"], ["--allow", "-x"], [KEY]):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)
    assert "--allow" in capsys.readouterr().err
