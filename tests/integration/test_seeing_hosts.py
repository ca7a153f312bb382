"""Seeing all hosts of a cluster from one of them: real daemons, one broker."""

import asyncio
import json
import os
import signal

import pytest

from bus import keystore
from bus.client import connect
from bus.identity import Address
from bus.signals import unpack
from tests.support.cluster import cluster
from tests.support.instance import until
from tests.support.watching import watched
from viscript.events import SUBJECT, Published


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("c")) as made:
        made.first.start("sleeper")
        made.beta = made.join("beta")
        made.beta.start("chatty")
        yield made


def test_top_shows_the_launches_of_all_hosts_in_one_table(pair):
    frames = pair.first.ask("top")
    assert len(frames) == 2
    assert {x["app"] for frame in frames for x in frame["usage"]} >= {"sleeper", "chatty"}
    shown = pair.first.run("top").stdout
    assert "beta:chatty" in shown


def test_events_of_all_hosts_are_heard_each_with_its_own_numbers(pair):
    with watched(pair.first, "events", "-f", "--json") as seen:
        until(lambda: [x["kind"] for x in seen.objects].count("snapshot") == 2)
        here = pair.first.start("sh", "true")["id"]
        there = pair.beta.start("sh", "true")["id"]
        seen.until_told(here, "exited")
        seen.until_told(there, "exited")
        for host in {x["host"] for x in seen.objects if x["kind"] == "snapshot"}:
            told = [x for x in seen.objects if x.get("host") == host]
            numbers = [x["seq"] for x in told]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_history_and_why_find_an_app_on_whatever_host_it_is(pair):
    number = pair.beta.start("sh", "echo from afar; true")["id"]
    assert {x["id"] for x in pair.first.ask("history", str(number))} == {number}
    (found,) = pair.first.ask("why", str(number))
    assert found["log"] == ["from afar"]
    assert "nothing is known" in pair.first.run("why", "nobody", code=5).stderr


def test_a_host_that_is_away_is_named_after_what_the_others_say(tmp_path):
    with cluster(tmp_path) as made:
        made.first.start("sleeper")
        beta = made.join("beta")
        daemon = beta.daemon_pid()
        os.kill(daemon, signal.SIGSTOP)
        try:
            done = made.first.run("top", code=10)
        finally:
            os.kill(daemon, signal.SIGCONT)
        assert "sleeper" in done.stdout
        assert "beta" in done.stderr


def test_status_of_an_app_is_found_on_its_host(pair):
    assert pair.first.run("status", "chatty").stdout.startswith("beta:chatty (ID ")


def test_of_a_host_that_lets_others_see_nothing_only_its_own_people_hear_what_happens(tmp_path):
    with cluster(tmp_path) as made:
        beta = made.join("beta", options=("--grant", "none"))
        daemon = json.loads((made.first.root / "daemon.json").read_text())
        private = json.loads((beta.root / "daemon.json").read_text())["key"]
        heard: list[Published] = []

        async def listen(until_seen: asyncio.Future[None]) -> None:
            pair = keystore.load(made.first.root / "keys" / "cli.key")
            address = Address(daemon["endpoint"], daemon["broker_key"])
            async with connect(address, pair, name="spy") as bus:
                told = await bus.subscribe(SUBJECT)
                until_seen.set_result(None)
                async for message in told:
                    if message.sender == private:
                        heard.append(unpack(message.body, Published))
                        if len(heard) >= 3:
                            return

        async def main() -> int:
            ready = asyncio.get_running_loop().create_future()
            spy = asyncio.create_task(listen(ready))
            await ready
            number = await asyncio.to_thread(lambda: beta.start("sh", "true")["id"])
            await asyncio.wait_for(spy, 10)
            return number

        with watched(beta, "events", "-f", "--json") as seen:
            until(lambda: any(x["kind"] == "snapshot" for x in seen.objects))
            seen.until_told(asyncio.run(main()), "exited")
        assert [x.event for x in heard] == [None] * 3
