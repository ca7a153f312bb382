"""`viscript vpn` as a user types it, on a machine of its own (a network namespace) without an exit."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.inside import Inside
from tests.support.namespaces import Namespaces


@pytest.fixture(scope="module")
def home() -> Iterator[Inside]:
    spaces = Namespaces(["c"])
    with tempfile.TemporaryDirectory(prefix="vpn-") as folder:
        made = Inside(Path(folder, "home"), spaces.of("c"))
        try:
            (made.root / "config.yaml").unlink()  # the shipped one has all that is needed
            made.run("up", "--detach")
            yield made
        finally:
            made.clean_up()
            spaces.close()


def test_off_means_that_nothing_is_changed_and_says_so(home: Inside) -> None:
    done = home.run("vpn", "status", code=3)
    assert "the VPN is off; on: viscript vpn on KEY|NAME|fastest" in done.stderr
    assert json.loads(home.run("vpn", "status", "--json", code=3).stdout)["on"] is False
    assert "it was off already" in home.run("vpn", "off").stdout
    assert "BROKEN" not in home.run("vpn", "doctor").stdout


def test_a_node_that_nobody_knows_changes_nothing(home: Inside) -> None:
    before = home.rules()
    assert "no node 'nobody' is known" in home.run("vpn", "on", "nobody", code=5).stderr
    assert home.rules() == before


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--only", "0.0.0.0/0"), "0.0.0.0/0 is everything"),
        (("--exclude", "10.0.0.1/8"), "has host bits set; want for instance 192.0.2.0/24"),
        (("--offload", "never"), "want auto or off"),
    ],
)
def test_wrong_options_change_nothing(home: Inside, options: tuple[str, str], why: str) -> None:
    before = home.rules()
    assert why in home.run("vpn", "on", "beta", *options, code=2).stderr
    assert home.rules() == before


def test_without_an_exit_it_blocks_and_says_so_until_it_is_off(home: Inside) -> None:
    before = home.rules()
    done = home.run("vpn", "on", "beta", "--timeout", "8", code=7)
    assert "no tunnel after 8 s" in done.stderr
    assert "nothing leaves meanwhile" in done.stderr
    assert "policy drop" in home.rules()
    shown = home.run("vpn", "status").stdout
    assert "exits: beta" in shown
    assert "no app listens on that port" in shown
    found = home.ask("vpn", "status")
    assert (found["on"], found["client"]["state"]) == (True, "connecting")
    assert "WARNING  client" in home.run("vpn", "doctor", code=1).stdout
    home.run("vpn", "off")
    assert home.rules() == before


def test_off_works_when_nothing_runs_any_more(home: Inside) -> None:
    before = home.rules()
    home.run("vpn", "on", "beta", "--timeout", "3", code=7)
    home.run("down")
    assert "policy drop" in home.rules()
    assert home.ask("vpn", "status")["client"]["state"] == "unknown"
    assert "nothing leaves beside it" in home.run("vpn", "doctor", code=1).stdout
    done = home.run("vpn", "off")
    assert "everything is as it was" in done.stdout
    assert home.rules() == before
    home.run("up", "--detach")
