"""The first start of a home: apps and broker begin together."""

import json
import socket
import sys

from bus.identity import to_hex
from tests.support.instance import APPS, alive, instance, until

# Prints whether the broker listens already; then it is on the bus, however long that takes.
JOINS = """
import os, socket
host, _, port = os.environ["VISCRIPT_BROKER"].removeprefix("tcp://").rpartition(":")
with socket.socket() as probe:
    print("listens" if probe.connect_ex((host, int(port))) == 0 else "not yet", flush=True)
from bus.process import run
async def main(participant):
    print("joined", flush=True)
    await participant.stopping.wait()
run(main)
"""


def joining(**more):
    return {"path": sys.executable, "args": ["-P", "-c", JOINS], "autostart": True, **more}


def test_apps_do_not_wait_for_the_broker_and_are_on_the_bus_when_it_is_there(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        made.configure({"joins": joining(ready="bus")})
        made.run("up", "--detach")
        assert [x["state"] for x in made.ask("la")] == ["running"]
        told = made.run("logs", "joins").stdout.split("\n")
        assert told[:2] == ["not yet", "joined"]


def test_what_is_on_the_bus_first_has_a_key_of_its_own_that_ends_with_it(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        made.configure({"joins": joining(ready="bus")})
        made.run("up", "--detach")
        launch = made.ask("la")[0]
        allowed = {x["name"] for x in json.loads((made.root / "access.json").read_text())["keys"]}
        assert "joins" in allowed
        made.run("sd", str(launch["id"]))
        until(lambda: to_hex(launch["key"]) not in (made.root / "access.json").read_text())


def test_what_ends_before_the_broker_is_there_is_started_again_when_it_is(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        made.configure({"brief": {"path": "true", "autostart": True, "restart": "always"}})
        made.run("up", "--detach", code=None)
        until(lambda: made.ask("la")[0]["restarts"] > 0)


def test_without_its_port_nothing_is_begun_and_nothing_counts_as_stopped(tmp_path):
    with instance(tmp_path / "h", up=False) as made, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        made.configure(APPS, broker={"endpoint": endpoint})
        made.run("up", "--detach", code=9)
        assert not list(made.root.glob("logs/*-sleeper.log"))
        taken.close()
        made.run("up", "--detach")
        assert [x["app"] for x in made.ask("la")] == ["sleeper"]


def test_apps_end_with_a_broker_that_cannot_run_and_come_back_with_it(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        made.run("up", "--detach")
        made.run("down")
        settings = made.root / "broker.json"
        whole = settings.read_text()
        settings.write_text(json.dumps({**json.loads(whole), "access_file": "nowhere/access.json"}))
        made.run("up", "--detach", code=9)
        reports = [json.loads(x.read_text()) for x in made.root.glob("launches/*/state.json")]
        assert not any(alive(x["pid"]) for x in reports if x["pid"])
        settings.write_text(whole)
        made.run("up", "--detach")
        assert [x["app"] for x in made.ask("la")] == ["sleeper"]
