"""What a launched program learns from its environment."""

import subprocess
import sys
from pathlib import Path

import pytest

from bus.identity import Address
from bus.process import Environment, EnvironmentProblem

FULL = {
    "VISCRIPT_HOME": "/h", "VISCRIPT_RUN": "/r", "VISCRIPT_STATE": "/s", "VISCRIPT_BROKER": "tcp://h:1",
    "VISCRIPT_BROKER_KEY": "k" * 40, "VISCRIPT_KEY_FILE": "/h/a.key", "VISCRIPT_APP": "clock",
    "VISCRIPT_ID": "12", "VISCRIPT_LAUNCHER": "l" * 40,
}  # fmt: skip


def test_everything_a_launcher_tells_is_read() -> None:
    assert Environment.read(FULL) == Environment(
        Address("tcp://h:1", "k" * 40), Path("/h/a.key"), "clock", 12, "l" * 40,
        Path("/h"), Path("/r"), Path("/s"),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["VISCRIPT_BROKER", "VISCRIPT_BROKER_KEY", "VISCRIPT_KEY_FILE"])
def test_what_is_needed_and_missing_is_named_with_the_way_out(name: str) -> None:
    with pytest.raises(EnvironmentProblem, match=f"{name} is not set.*viscript start"):
        Environment.read({k: v for k, v in FULL.items() if k != name})


def test_the_rest_may_be_missing() -> None:
    needed = ("VISCRIPT_BROKER", "VISCRIPT_BROKER_KEY", "VISCRIPT_KEY_FILE")
    environment = Environment.read({name: FULL[name] for name in needed})
    assert (environment.id, environment.launcher) == (None, None)
    assert environment.run_dir == environment.state_dir == environment.home == Path()
    assert environment.app


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "²"])
def test_an_id_that_is_no_number_is_none(text: str) -> None:
    assert Environment.read({**FULL, "VISCRIPT_ID": text}).id is None


def test_a_program_takes_as_many_descriptors_as_it_may_have() -> None:
    program = """
import resource
from bus.process import raise_descriptor_limit
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
raise_descriptor_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout == b"True\n"
