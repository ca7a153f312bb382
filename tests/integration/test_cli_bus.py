"""`viscript bus pub`, `sub`, `req`, `reply`, `rtt`, `bench`: the real command through the real broker."""

import json
import os
import pty
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from tests.support.broker import running_broker, until
from tests.support.bus_command import COMMAND, BusCommand


@pytest.fixture(scope="module")
def bus(tmp_path_factory):
    with running_broker(root="admin", ann="app", bob="app") as broker:
        yield BusCommand(broker, tmp_path_factory.mktemp("user"))


def listening(bus, by, *arguments):
    return bus.running(by, "sub", *arguments)


def test_a_published_message_is_shown_with_subject_and_sender(bus):
    with listening(bus, "bob", "app.news.*", "--count", "2") as sub:
        bus.session_of("bob", subscriptions=1)
        assert (
            "published 4 bytes to app.news.a"
            in bus.run("ann", "pub", "app.news.a", "--", "-4.5").stdout
        )
        bus.run("ann", "pub", "app.news.b", "-", input="from a pipe")
        code, out, _ = sub.end()
    assert code == 0
    first, second = out.splitlines()
    assert first.split("  ")[::2] == ["app.news.a", "-4.5"]
    assert second.endswith("  from a pipe")


def test_json_lines_lose_no_byte(bus, tmp_path):
    (tmp_path / "body").write_bytes(bytes(range(256)))
    with listening(bus, "bob", "app.b", "--count", "2", "--json") as sub:
        bus.session_of("bob", subscriptions=1)
        bus.run("ann", "pub", "app.b", "--file", str(tmp_path / "body"))
        bus.run("ann", "pub", "app.b", "ü\n")
        _, out, _ = sub.end()
    binary, text = map(json.loads, out.splitlines())
    assert binary.keys() == {"time", "subject", "from", "size", "base64"}
    assert (binary["size"], binary["from"]) == (256, bus.broker.keys["ann"].public)
    assert (text["text"], text["size"]) == ("ü\n", 3)


def test_raw_with_a_count_of_one_is_the_body_byte_for_byte(bus):
    body = bytes(range(256)) * 300
    with listening(bus, "bob", "app.raw", "--count", "1", "--raw") as sub:
        bus.session_of("bob", subscriptions=1)
        bus.raw("bus", "pub", "app.raw", "-", "--context", "ann", input=body)
        out, _ = sub.process.communicate(timeout=15)
    assert out == body


def test_many_messages_arrive_in_number(bus):
    with listening(bus, "bob", "app.many", "--count", "5000", "--raw") as sub:
        bus.session_of("bob", subscriptions=1)
        told = bus.ask("ann", "pub", "app.many", "x", "--count", "5000")
        code, out, err = sub.end()
    assert told == {
        "subject": "app.many", "messages": 5000, "bytes": 5000, "seq": None, "duplicate": False,
    }  # fmt: skip
    assert (code, out.count("x"), err) == (0, 5000, "")


def test_a_group_shares_the_messages(bus):
    with (
        listening(bus, "bob", "app.job", "--group", "g") as one,
        listening(bus, "ann", "app.job", "--group", "g") as two,
    ):
        bus.session_of("bob", subscriptions=1)
        bus.session_of("ann", subscriptions=1)
        bus.run("ann", "pub", "app.job", "x", "--count", "20")
        time.sleep(0.5)
        counts = [len(sub.interrupt()[1].splitlines()) for sub in (one, two)]
    assert sum(counts) == 20
    assert min(counts) > 0


def test_remote_text_cannot_steer_the_terminal_or_pose_as_a_second_message(bus):
    with listening(bus, "bob", "app.evil", "--count", "1") as sub:
        bus.session_of("bob", subscriptions=1)
        bus.run("ann", "pub", "app.evil", "a\x1b[31mb\x1b]0;t\x07c\nroot  forged\r\u202e")
        _, out, _ = sub.end()
    assert out.endswith("  abc\\nroot  forged\\r\n")


def test_ctrl_c_ends_a_listener_with_130_and_a_goodbye(bus):
    with listening(bus, "bob", "app.x") as sub:
        bus.session_of("bob", subscriptions=1)
        code, out, err = sub.interrupt()
    assert (code, out, err) == (130, "", "")
    closed = bus.ask("root", "sessions", "--closed")
    key = bus.broker.keys["bob"].public
    assert next(s for s in closed if s["key"] == key)["num"] == 0


def test_a_reader_that_stops_reading_ends_it_quietly(bus):
    with listening(bus, "bob", "app.x") as sub:
        bus.session_of("bob", subscriptions=1)
        sub.process.stdout.close()
        deadline = time.monotonic() + 15
        while sub.process.poll() is None and time.monotonic() < deadline:
            bus.run("ann", "pub", "app.x", "x")
        err = sub.process.stderr.read()
        sub.process.stdout = None
    assert (sub.process.returncode, err) == (141, b"")


def test_for_ends_in_time_and_a_count_that_is_not_reached_is_code_7(bus):
    assert bus.run("bob", "sub", "app.x", "--for", "0.2").stdout == ""
    done = bus.run("bob", "sub", "app.x", "--for", "0.2", "--count", "2", code=7)
    assert "0 of 2 messages came in 0.2 s" in done.stderr


def test_requests_are_answered_by_echo_text_and_command(bus):
    cases = [
        (["app.r1"], b"\x00\xff binary", b"\x00\xff binary"),
        (["app.r2", "fixed"], b"anything", b"fixed"),
        (["app.r3", "--command", "tr a-z A-Z"], b"quiet", b"QUIET"),
        (["app.r4", "--command", "sh -c 'echo $VISCRIPT_SUBJECT'"], b"", b"app.r4\n"),
    ]
    for arguments, question, answer in cases:
        with bus.running("bob", "reply", *arguments, "--count", "1") as server:
            assert server.line().startswith("answering requests")
            asked = ["bus", "req", arguments[0], "-", "--raw", "--context", "ann"]
            assert bus.raw(*asked, input=question).stdout == answer
            assert server.end()[0] == 0


def test_a_command_that_fails_or_hangs_is_an_error_for_the_requester_and_leaves_nothing(bus):
    with bus.running("bob", "reply", "app.f", "--command", "sh -c 'exit 3'") as server:
        server.line()
        assert "the command ended with 3" in bus.run("ann", "req", "app.f", code=1).stderr
    marker = "31.41592"
    with bus.running(
        "bob", "reply", "app.h", "--command", f"sh -c 'sleep {marker}; true'"
    ) as server:
        server.line()
        bus.run("ann", "req", "app.h", "--timeout", "0.5", code=7)
        assert server.interrupt()[0] == 130
    assert not runs(marker)


def test_who_ends_ends_the_commands_it_runs(bus):
    for number, marker in ((signal.SIGINT, "31.41593"), (signal.SIGTERM, "31.41594")):
        with bus.running(
            "bob", "reply", "app.long", "--command", f"sh -c 'sleep {marker}; true'"
        ) as server:
            server.line()
            with bus.running("ann", "req", "app.long", "--timeout", "40"):
                until(lambda marker=marker: runs(marker), "the command")
                began = time.monotonic()
                server.process.send_signal(number)
                code = server.end()[0]
        assert time.monotonic() - began < 15
        assert code == 128 + number
        assert not runs(marker)


def test_who_is_killed_leaves_no_command_nor_what_it_started(bus):
    marker = "31.41595"
    with bus.running(
        "bob", "reply", "app.long", "--command", f"sh -c 'sleep {marker}; true'"
    ) as server:
        server.line()
        with bus.running("ann", "req", "app.long", "--timeout", "40"):
            until(lambda: runs(marker), "the command")
            server.process.kill()
            assert server.end()[0] == -signal.SIGKILL
            until(lambda: not runs(marker), "the end of the command")


def runs(marker: str) -> bool:
    return any(p.info["cmdline"] == ["sleep", marker] for p in psutil.process_iter(["cmdline"]))


def test_all_who_serve_are_asked_and_each_answer_has_its_sender(bus):
    with (
        bus.running("bob", "reply", "app.who", "I am bob") as one,
        bus.running("ann", "reply", "app.who", "I am ann") as two,
    ):
        one.line(), two.line()
        out = bus.run("ann", "req", "app.who", "--all", "--json").stdout
    answers = {answer["from"]: answer["text"] for answer in map(json.loads, out.splitlines())}
    keys = bus.broker.keys
    assert answers == {keys["bob"].public: "I am bob", keys["ann"].public: "I am ann"}


def test_streamed_and_idempotent_requests_are_answered(bus):
    with bus.running("bob", "reply", "app.s", "--name", "s") as server:
        server.line()
        assert bus.run("ann", "req", "app.s", "one chunk", "--stream").stdout == "one chunk\n"
        assert bus.run("ann", "req", "app.s", "again", "--idempotent").stdout == "again\n"
        [offer] = [s for s in bus.ask("root", "services") if s["subject"] == "app.s"]
        assert (offer["name"], offer["requests"]) == ("s", 2)
        [program] = bus.ask("ann", "services", "--ask")
        assert [e["subject"] for e in program["endpoints"]] == ["app.s"]


@pytest.mark.parametrize(
    ("by", "arguments", "code", "words"),
    [
        ("ann", ["req", "app.nobody"], 5, "nobody serves app.nobody"),
        ("ann", ["pub", "secret.x", "x"], 4, "publish secret.x"),
        ("ann", ["sub", "secret.>"], 4, "subscribe secret.>"),
        ("ann", ["sessions"], 4, "viscript bus keys allow"),
        ("ann", ["pub", "not a subject", "x"], 2, "not a subject"),
        ("ann", ["sub", "app.>.x"], 2, "not a subject pattern"),
        ("ann", ["pub", "app.x", "x", "--durable"], 5, "no durable topic takes in app.x"),
        ("ann", ["pub", "app.x", "a", "--file", "/etc/passwd"], 2, "two bodies"),
        ("ann", ["pub", "app.x", "--file", "/no/such"], 5, "/no/such: no such file"),
        ("ann", ["pub", "app.x", "--file", "/dev/zero"], 2, "over 16 MiB"),
        ("ann", ["pub", "app.x", "x", "--id", "1", "--count", "2"], 2, "--id names one message"),
        ("ann", ["req", "app.x", "--all", "--stream"], 2, "exclude each other"),
        ("ann", ["req", "app.x", "--to", "nonsense"], 2, "not a public key"),
        ("ann", ["reply", "app.x", "--command", "no-such-program-here"], 2, "no such program"),
        ("ann", ["events", "closd"], 2, "closed"),
        ("ann", ["pubb"], 2, "Did you mean 'pub'?"),
        ("nobody", ["rtt"], 5, "no context 'nobody'"),
        ("an", ["rtt"], 5, "did you mean 'ann'?"),
    ],
)  # fmt: skip
def test_errors_name_the_thing_and_have_their_code(bus, by, arguments, code, words):
    done = bus.run(by, *arguments, code=code)
    assert words in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    told = json.loads(bus.run(by, *arguments, "--json", code=code).stderr.splitlines()[-1])
    assert told["exit_code"] == code


def test_a_body_over_the_brokers_limit_is_refused_with_the_limit(bus, tmp_path):
    (tmp_path / "big").write_bytes(bytes(2 << 20))
    done = bus.run("ann", "pub", "app.x", "--file", str(tmp_path / "big"), code=2)
    assert "over the broker's limit of 1048576" in done.stderr


def test_without_a_broker_it_is_code_6_with_the_way_out(bus):
    done = bus.raw("bus", "rtt", code=6, text=True)  # the home has no instance
    assert "viscript up" in done.stderr
    assert "viscript bus context" in done.stderr


def test_round_trips_and_throughput_say_what_they_measured(bus):
    told = bus.ask("ann", "rtt", "--count", "20")
    assert told["count"] == 20
    assert 0 < told["min"] <= told["median"] <= told["p99"] <= told["max"]
    assert bus.broker.address.endpoint in bus.run("ann", "rtt").stdout
    for size in ("0", "65536"):
        told = bus.ask("ann", "bench", "--size", size, "--messages", "300", "--requests", "30")
        assert told["messages_per_second"] > 0
        assert told["requests_per_second"] > 0
        assert told["lost"] == 0
    text = bus.run("ann", "bench", "--messages", "100", "--requests", "0").stdout
    assert "both ends in this process" in text
    assert "round trip" not in text


def test_progress_is_for_terminals_only(bus):
    done = bus.run("ann", "rtt", "--count", "2000")
    assert done.stderr == ""
    master, slave = pty.openpty()
    command = [*COMMAND, "bus", "--context", "ann", "rtt", "--count", "2000"]
    subprocess.run(command, env=bus.environment, stderr=slave, stdout=subprocess.DEVNULL,
                   check=True, timeout=30)  # fmt: skip
    os.close(slave)
    assert b"of 2000" in os.read(master, 4096)
    os.close(master)


def test_a_listener_outlives_the_broker_and_says_what_it_missed():
    with running_broker(root="admin", ann="app") as broker, tempfile.TemporaryDirectory() as folder:
        bus = BusCommand(broker, Path(folder))
        with bus.running("ann", "sub", "app.>", "--count", "1") as sub:
            bus.session_of("ann", subscriptions=1)
            broker.stop()
            broker.start()
            bus.session_of("ann", subscriptions=1)
            bus.run("ann", "pub", "app.x", "after")
            code, out, err = sub.end()
    assert (code, out.endswith("  after\n")) == (0, True)
    assert "the connection is back" in err


def test_a_bench_that_may_not_publish_says_so_at_once(bus):
    told = bus.run("root", "bench", "--prefix", "$SYS.x", "-n", "10", code=4).stderr
    assert "publish" in told
