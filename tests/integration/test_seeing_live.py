"""What is seen as it happens: `events -f` over every fault, and `top` on a terminal."""

import os
import signal
import subprocess
import sys

from bus.signals import pack
from tests.support.instance import alive, instance, until
from tests.support.watching import OnTerminal, watched
from viscript.events import Event, Published


def whole(objects: list[dict]) -> bool:
    """No number is missing or doubled between two snapshots."""
    last = None
    for told in objects:
        if told["kind"] == "snapshot":
            last = told["seq"]
        elif told["kind"] == "event" and last is not None:
            if told["seq"] != last + 1:
                return False
            last = told["seq"]
    return True


def test_a_snapshot_comes_first_then_every_event_in_order(tmp_path):
    with instance(tmp_path / "h") as made, watched(made, "events", "-f", "--json") as seen:
        until(lambda: seen.objects)
        first = seen.objects[0]
        assert first["kind"] == "snapshot"
        assert [x["app"] for x in first["launches"]] == ["sleeper"]
        number = made.start("sh", "exit 0")["id"]
        seen.until_told(number, "exited")
        assert seen.events(number)[0] == ("", "blocked")
        killed = made.start("sleeper")
        os.kill(killed["pid"], signal.SIGKILL)
        seen.until_told(killed["id"], "failed")
        assert "SIGKILL" in seen.objects[-1]["text"]
        assert whole(seen.objects)


def test_events_are_shown_on_over_kill_9_of_the_broker(tmp_path):
    with instance(tmp_path / "h") as made, watched(made, "events", "-f", "--json") as seen:
        until(lambda: seen.objects)
        broker = made.ask("status")["broker"]["pid"]
        os.kill(broker, signal.SIGKILL)
        until(lambda: not alive(broker))
        number = made.start("sh", "exit 0")["id"]
        seen.until_told(number, "exited")
        assert whole(seen.objects)
        brokers = [x["to"] for x in seen.objects if x.get("app") == "broker"]
        assert brokers[-1] == "running"


def test_numbers_go_on_and_nothing_is_missed_over_kill_9_of_the_daemon(tmp_path):
    with instance(tmp_path / "h") as made, watched(made, "events", "-f", "--json") as seen:
        until(lambda: seen.objects)
        sleeper = made.ask("la")[0]
        made.kill_daemon()
        os.kill(sleeper["pid"], signal.SIGKILL)  # while nobody looks
        made.run("up", "--detach", code=None)
        seen.until_told(sleeper["id"], "failed")
        assert whole(seen.objects)
        assert [x["kind"] for x in seen.objects].count("snapshot") == 1
        told = made.ask("history", str(sleeper["id"]))
        assert told[-1]["to"] == "failed"
        assert "SIGKILL" in told[-1]["text"]


def test_a_daemon_that_is_told_to_end_says_so_and_one_that_is_killed_cannot(tmp_path):
    with instance(tmp_path / "h") as made:
        os.kill(made.daemon_pid(), signal.SIGTERM)
        until(lambda: made.run("status", code=None).returncode == 3)
        made.run("up", "--detach", code=None)
        assert [x["to"] for x in made.ask("history", "daemon")] == ["up", "ended", "up"]
        made.kill_daemon()
        made.run("up", "--detach", code=None)
        assert [x["to"] for x in made.ask("history", "daemon")][-2:] == ["up", "up"]


def test_events_that_somebody_else_publishes_are_not_believed(tmp_path):
    with instance(tmp_path / "h") as made, watched(made, "events", "-f", "--json") as seen:
        until(lambda: seen.objects)
        forged = Event(seq=seen.objects[0]["seq"] + 1, ts=1.0, app="forged", to="failed", cause="x")
        body = tmp_path / "body"
        body.write_bytes(pack(Published(host="vm", last=forged.seq, event=forged)))
        made.run("bus", "pub", "viscript.events", "--file", str(body))
        number = made.start("sh", "true")["id"]
        seen.until_told(number, "exited")
        assert "forged" not in {x.get("app") for x in seen.objects}
        assert whole(seen.objects)


def test_a_reader_that_goes_away_ends_following_quietly(tmp_path):
    with instance(tmp_path / "h") as made:
        command = f"{sys.executable} -P -m viscript.cli events -f | head -n 1"
        done = subprocess.Popen(
            ["sh", "-c", command], env=made.environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert "sleeper" in done.stdout.readline()
        made.start("sh", "true")
        _, problem = done.communicate(timeout=20)
        assert problem == ""


def test_after_down_and_up_it_is_heard_again(tmp_path):
    with instance(tmp_path / "h") as made, watched(made, "events", "-f", "--json") as seen:
        until(lambda: seen.objects)
        made.run("down")
        until(lambda: seen.objects[-1]["kind"] == "away", 20)
        made.run("up", "--detach")
        number = max(x["id"] for x in made.ask("la"))
        seen.until_told(number, "running")
        assert whole(seen.objects)


def test_only_what_a_selector_matches_is_shown_as_lines_for_people(tmp_path):
    with instance(tmp_path / "h") as made, watched(made, "events", "-f", "sh") as seen:
        made.start("sleeper")
        number = made.start("sh", "true")["id"]
        until(lambda: any("exited" in line for line in seen.lines))
        assert all(f"sh (ID {number})" in line for line in seen.lines)


def test_without_a_daemon_following_ends_at_once(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        assert "viscript up" in made.run("events", "-f", code=6).stderr


def test_top_draws_sorts_scales_with_the_terminal_and_leaves_it_as_it_was(tmp_path):
    with instance(tmp_path / "h") as made:
        made.start("citizen")
        top = OnTerminal(made, "top", "-i", "0.5")
        until(lambda: "sleeper" in top.frame and "CPU %*" in top.frame)
        assert "citizen" in top.frame
        top.press("n")
        until(lambda: "APP*" in top.frame)
        assert top.frame.index("citizen") < top.frame.index("sleeper")
        top.press("r")
        until(lambda: "APP^" in top.frame)
        assert top.frame.index("sleeper") < top.frame.index("citizen")
        top.resize(5, 40)
        until(lambda: top.frame.count("\r\n") == 4)
        top.press("h")
        until(lambda: "sort by CPU" in top.frame)
        top.press("q")
        code, left = top.end()
        assert code == 0
        assert left == top.before
        assert top.drawn.endswith("\x1b[?25h\x1b[?1049l")


def test_top_shows_the_last_state_and_its_age_while_the_daemon_is_away(tmp_path):
    with instance(tmp_path / "h") as made:
        top = OnTerminal(made, "top", "-i", "0.25")
        until(lambda: "sleeper" in top.frame)
        made.kill_daemon()
        until(lambda: "as it was" in top.frame, 20)
        assert "sleeper" in top.frame
        made.run("up", "--detach", code=None)
        until(lambda: "as it was" not in top.frame, 20)
        os.kill(top.process.pid, signal.SIGTERM)
        code, left = top.end()
        assert code == 130
        assert left == top.before


def test_top_on_a_dumb_terminal_prints_once(tmp_path):
    with instance(tmp_path / "h") as made:
        top = OnTerminal(made, "top", term="dumb")
        code, _ = top.end()
        assert code == 0
        assert "sleeper" in top.drawn
        assert "\x1b" not in top.drawn
