"""`viscript bus topics`, `consumers` and `pub --durable`: through the real broker, across its restart."""

import json
import os
import pty
import subprocess

import pytest

from tests.support.broker import running_broker
from tests.support.bus_command import COMMAND, BusCommand


@pytest.fixture(scope="module")
def bus(tmp_path_factory):
    with running_broker(root="admin", op="operator", ann="app", bob="app") as broker:
        yield BusCommand(broker, tmp_path_factory.mktemp("user"))


@pytest.fixture
def topic(bus, request):
    """A topic of the test's own, on `app.<name>.>`."""
    name = request.node.name.replace("test_", "")[:40]
    bus.run("root", "topics", "add", name, f"app.{name}.>")
    yield name
    bus.run("root", "topics", "rm", name, "--yes", code=None)


def lines(done) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def publish(bus, topic, *bodies):
    for body in bodies:
        bus.run("ann", "pub", f"app.{topic}.x", body, "--durable")


def test_a_message_id_is_stored_once_however_often_it_is_sent(bus, topic):
    arguments = ["pub", f"app.{topic}.x", "seven", "--id", "order-7"]
    first, again = bus.ask("ann", *arguments), bus.ask("ann", *arguments)
    assert (first["duplicate"], again["duplicate"]) == (False, True)
    assert first["seq"] == again["seq"]
    assert "it was stored before" in bus.run("ann", *arguments).stdout
    assert bus.ask("root", "topics", "list")[0]["messages"] == 1


def test_many_are_stored_in_number(bus, topic):
    told = bus.ask("ann", "pub", f"app.{topic}.x", "x", "--durable", "--count", "300")
    assert told["messages"] == 300
    [info] = [t for t in bus.ask("root", "topics", "list") if t["config"]["topic"] == topic]
    assert (info["messages"], info["last"]) == (300, told["seq"])


def test_reading_begins_where_it_is_told(bus, topic):
    publish(bus, topic, *"abcdef")

    def read(*arguments):
        return "".join(
            m["text"] for m in lines(bus.run("ann", "topics", "read", topic, "--json", *arguments))
        )

    assert read() == "abcdef"
    assert read("--seq", "3") == "cdef"
    assert read("--last", "2") == "ef"
    assert read("--count", "2") == "ab"
    assert read("--since", "3600") == "abcdef"
    assert read("--since", "0") == ""
    bus.run("ann", "topics", "read", topic, "--seq", "1", "--last", "1", code=2)
    shown = bus.run("ann", "topics", "read", topic, "--last", "1").stdout
    assert shown.startswith("6  ")
    assert shown.endswith("  f\n")


def test_reading_follows_what_comes_until_ctrl_c(bus, topic):
    publish(bus, topic, "old")
    with bus.running("bob", "topics", "read", topic, "--follow", "--json") as reader:
        assert json.loads(reader.line())["text"] == "old"
        publish(bus, topic, "new")
        assert json.loads(reader.line())["text"] == "new"
        assert reader.interrupt()[0] == 130


def test_a_consumer_gets_each_message_until_it_is_settled(bus, topic):
    bus.run(
        "ann",
        "consumers",
        "add",
        topic,
        "work",
        "--ack-wait",
        "60",
        "--max-deliver",
        "2",
        "--dead",
        "app.dead",
    )
    publish(bus, topic, *"abc")
    take = ["consumers", "next", topic, "work", "--json"]
    assert [m["text"] for m in lines(bus.run("bob", *take))] == ["a"]
    assert [m["text"] for m in lines(bus.run("bob", *take, "--nak", "0"))] == ["b"]
    again = lines(bus.run("bob", "consumers", "pull", topic, "work", "--json"))
    assert [(m["text"], m["deliveries"]) for m in again] == [("b", 2)]
    with bus.running("bob", "sub", "app.dead", "--count", "1") as letters:
        bus.session_of("bob", subscriptions=1)
        assert [m["text"] for m in lines(bus.run("bob", *take, "--term"))] == ["c"]
        assert letters.end()[1].endswith("  c\n")
    done = bus.run("bob", "consumers", "next", topic, "work", code=5)
    assert "no more messages" in done.stderr
    [info] = bus.ask("ann", "consumers", "list", topic)
    assert (info["config"]["consumer"], info["floor"], info["inflight"]) == ("work", 3, 0)
    bus.run("ann", "consumers", "rm", topic, "work", "--yes")
    assert bus.ask("ann", "consumers", "list", topic) == []


def test_what_is_not_acknowledged_comes_again(bus, topic):
    bus.run("ann", "consumers", "add", topic, "w", "--ack-wait", "0.3")
    publish(bus, topic, "a")
    bus.run("bob", "consumers", "next", topic, "w", "--no-ack")
    [again] = lines(bus.run("bob", "consumers", "next", topic, "w", "--wait", "10", "--json"))
    assert (again["text"], again["deliveries"]) == ("a", 2)


def test_consumers_start_where_they_are_told(bus, topic):
    publish(bus, topic, *"abc")
    for name, start, first in (("new", [], None), ("last", [], "c"), ("seq", ["--at", "2"], "b")):
        bus.run("ann", "consumers", "add", topic, name, "--start", name, *start)
        done = bus.run("ann", "consumers", "next", topic, name, "--json", code=0 if first else 5)
        assert [m["text"] for m in lines(done)] == ([first] if first else [])
    bus.run("ann", "consumers", "add", topic, "x", "--start", "seq", code=2)
    bus.run("ann", "consumers", "add", topic, "x", "--start", "middle", code=2)
    bus.run("ann", "consumers", "add", topic, "x", "--at", "7", code=2)


def test_a_topic_that_is_full_refuses_when_it_is_told_to(bus):
    bus.run(
        "root", "topics", "add", "small", "app.small", "--max-messages", "2", "--full", "reject"
    )
    bus.run("ann", "pub", "app.small", "x", "--durable", "--count", "2")
    done = bus.run("ann", "pub", "app.small", "x", "--durable", code=1)
    assert done.stderr.startswith("error: ")
    bus.run("root", "topics", "add", "small", "app.small", "--full", "nonsense", code=2)
    assert "2 messages, then refuses" in bus.run("root", "topics", "list").stdout
    bus.run("root", "topics", "rm", "small", "--yes")


def test_what_is_not_there_and_what_is_not_allowed(bus, topic):
    bus.run("ann", "topics", "read", "nothing", code=5)
    bus.run("ann", "consumers", "next", topic, "nobody", code=5)
    bus.run("root", "topics", "rm", "nothing", "--yes", code=5)
    bus.run("ann", "topics", "add", "mine", "app.mine", code=4)
    bus.run("root", "topics", "add", "bad name!", "app.bad", code=2)
    bus.run("root", "topics", "add", "ok", "not a pattern", code=2)


def test_removing_asks_first(bus, topic):
    assert (
        "--yes" in bus.run("root", "topics", "rm", topic, code=2, stdin=subprocess.DEVNULL).stderr
    )
    for answer, kept in ((b"n\n", True), (b"y\n", False)):
        master, slave = pty.openpty()
        command = [*COMMAND, "bus", "--context", "root", "topics", "rm", topic]
        process = subprocess.Popen(
            command, env=bus.environment, stdin=slave, stdout=slave, stderr=slave
        )
        os.write(master, answer)
        process.wait(20)
        os.close(slave)
        os.close(master)
        assert (topic in bus.run("root", "topics", "list").stdout) == kept


def test_the_shell_completes_topics_and_consumers(bus, topic):
    bus.run("ann", "consumers", "add", topic, "billing")
    before = bus.environment

    def completed(line):
        bus.environment = before | {
            "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1),
            "_VISCRIPT_COMPLETE": "complete_bash",
        }  # fmt: skip
        try:
            return bus.raw(code=None, text=True).stdout.split()
        finally:
            bus.environment = before

    assert completed(f"viscript bus --context ann topics read {topic[:8]}") == [topic]
    assert completed(f"viscript bus --context ann consumers next {topic} bil") == ["billing"]


def test_what_was_stored_survives_the_broker(bus, topic):
    publish(bus, topic, "kept")
    bus.broker.kill()
    bus.broker.start()
    assert [m["text"] for m in lines(bus.run("ann", "topics", "read", topic, "--json"))] == ["kept"]


def test_changing_one_limit_of_a_topic_or_consumer_leaves_the_others(bus):
    bus.run("root", "topics", "add", "keep", "app.keep.>", "--max-age", "604800")
    bus.run("root", "topics", "add", "keep", "app.keep.>", "--max-messages", "3")
    [topic] = [t for t in bus.ask("root", "topics", "list") if t["config"]["topic"] == "keep"]
    assert (topic["config"]["max_age"], topic["config"]["max_messages"]) == (604800, 3)
    bus.run("root", "consumers", "add", "keep", "shop", "--ack-wait", "2", "--max-deliver", "3")
    bus.run("root", "consumers", "add", "keep", "shop", "--max-inflight", "4")
    [shop] = bus.ask("root", "consumers", "list", "keep")
    found = [shop["config"][key] for key in ("ack_wait", "max_deliver", "max_inflight")]
    assert found == [2, 3, 4]


def test_an_id_that_is_empty_or_too_long_is_a_mistake(bus):
    assert "--id is empty" in bus.run("root", "pub", "app.x", "--id", "", code=2).stderr
    told = bus.run("root", "pub", "app.x", "--id", "x" * 65, code=2).stderr
    assert "--id has 65 characters, at most 64" in told
    assert "--group has 65" in bus.run("root", "sub", "app.x", "--group", "x" * 65, code=2).stderr


def test_what_no_topic_takes_in_was_published_all_the_same(bus):
    told = bus.run("root", "pub", "app.nowhere", "--durable", code=5).stderr
    assert "it was published, and not stored" in told
