"""A zoo of programs that behave badly: each is ended, known with its code, and leaves nothing behind."""

import socket
import subprocess
import sys

import pytest

from tests.integration.test_fault_order import of_home
from tests.support.instance import Instance, instance, until

FLOOD = 64  # MiB; the system tests have a GiB
KEPT = 2 << 20  # bytes of its output, with what is being written
FORKS = """
import os, time
for number in range(300):
    if os.fork() == 0:
        if number % 2:
            os.setsid()
        time.sleep(1000)
print("forked", flush=True)
time.sleep(1000)
"""
HOLDS = """
import os, socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
if os.fork() == 0:
    os.setsid()
    time.sleep(1000)
print("listens", flush=True)
sys.exit(5)
"""


def shell(script: str, **more: object) -> dict:
    return {"path": "sh", "args": ["-c", script], **more}


def python(script: str, **more: object) -> dict:
    return {"path": sys.executable, "args": ["-c", script], **more}


QUICKLY = [{"signal": "TERM", "wait": "0.2s"}]
APPS = {
    "deaf": shell("trap '' TERM INT HUP; echo up; while :; do sleep 0.05; done", stop=QUICKLY),
    "leaver": shell("sleep 1000 & (sleep 1000 &) ; exit 6"),
    "fled": shell("setsid sleep 1000 & setsid sh -c 'sleep 1000 & sleep 1000' & echo up; sleep 1000"),
    "forks": python(FORKS, ready={"log": "^forked"}),
    "flood": shell(
        f"head -c {FLOOD << 20} /dev/zero | tr '\\000' x", log={"size": "1MiB", "files": 2, "gzip": False}
    ),
    "noise": shell(r"printf 'a\377\376b\303\n\000\033]0;title\007end\n'"),
    "nothing": {"path": "true"},
    "still": shell("echo up; kill -STOP $$; echo woken; sleep 1000", stop=QUICKLY),
    "holds": python(HOLDS),
}  # fmt: skip


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    with instance(tmp_path_factory.mktemp("home") / "h", up=False) as made:
        made.configure(APPS)
        made.run("up", "--detach")
        yield made


def gone(up: Instance, app: str) -> bool:
    return not of_home(up.root, app)


@pytest.mark.parametrize("app", ["deaf", "fled", "forks", "still"])
def test_it_is_ended_with_all_that_it_started(up: Instance, app: str):
    number = str(up.start(app)["id"])
    up.run("sd", number)
    until(lambda: gone(up, app))
    assert up.launch(int(number))["state"] == "exited"


def test_what_a_program_leaves_when_it_ends_is_ended_too(up: Instance):
    number = up.start_failing("leaver")
    assert up.launch(number)["exit"]["code"] == 6
    until(lambda: gone(up, "leaver"))


def test_output_without_an_end_of_line_takes_no_more_room_than_it_may(up: Instance):
    number = up.start_failing("flood")
    assert up.launch(number)["exit"]["code"] == 0
    kept = sum(x.stat().st_size for x in (up.root / "logs").glob(f"{number}-flood.log*"))
    assert 0 < kept <= KEPT
    assert up.ask("la") is not None


def test_bytes_that_are_no_text_go_through_a_pipe_unchanged_and_are_text_in_json(up: Instance):
    number = str(up.start_failing("noise"))
    command = [sys.executable, "-P", "-m", "viscript.cli", "logs", number]
    shown = subprocess.run(command, env=up.environment, capture_output=True, check=True).stdout
    assert shown == b"a\xff\xfeb\xc3\n\0\033]0;title\aend\n"
    text = up.run("logs", number, "--json").stdout
    assert [x for x in text.splitlines() if "end" in x], text
    assert "\033" not in text


def test_what_ends_at_once_is_known_with_its_code(up: Instance):
    for _ in range(3):
        number = up.start_failing("nothing")
        assert up.launch(number)["exit"]["code"] == 0


def test_a_port_is_free_again_when_what_held_it_has_ended(up: Instance):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    up.run("start", "holds", str(port), code=None)
    until(lambda: gone(up, "holds"))
    with socket.create_server(("127.0.0.1", port)):
        pass
