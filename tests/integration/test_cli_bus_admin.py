"""`viscript bus`: contexts, keys, tokens, joining, sessions, kick, events, check, conformance."""

import json
import stat
from pathlib import Path

import pytest

from bus.identity import fingerprint, is_key, to_hex
from tests.support.broker import Broker, running_broker, until
from tests.support.bus_command import BusCommand


@pytest.fixture(scope="module")
def bus(tmp_path_factory):
    with running_broker(root="admin", op="operator", ann="app", bob="app") as broker:
        yield BusCommand(broker, tmp_path_factory.mktemp("user"))


# Contexts.


def test_a_context_is_made_used_shown_and_removed(bus):
    address = bus.broker.address
    made = json.loads(
        bus.raw(
            "bus", "context", "add", "lab", address.endpoint, to_hex(address.key), "--json"
        ).stdout
    )
    assert made["made"]
    assert stat.S_IMODE(Path(made["key_file"]).stat().st_mode) == 0o600
    refused = bus.run("lab", "rtt", code=4)
    assert "viscript bus keys allow" in refused.stderr
    bus.run("root", "keys", "allow", to_hex(made["key"]), "--role", "app")
    bus.run("lab", "rtt")

    without_home = {k: v for k, v in bus.environment.items() if k != "VISCRIPT_HOME"}
    command = BusCommand.__new__(BusCommand)
    command.environment = without_home
    command.raw("bus", "context", "use", "lab")
    shown = json.loads(command.raw("bus", "context", "show", "--json").stdout)
    assert (shown["place"], shown["key"]) == ("context lab", made["key"])
    assert shown["broker_key"] == address.key
    command.raw("bus", "rtt")
    [chosen] = [
        c for c in json.loads(command.raw("bus", "context", "list", "--json").stdout) if c["chosen"]
    ]
    assert chosen["name"] == "lab"
    command.environment = without_home | {"VISCRIPT_CONTEXT": "ann"}
    assert b"context ann" in command.raw("bus", "context", "show").stdout

    bus.raw("bus", "context", "rm", "lab")
    bus.run("lab", "rtt", code=5)
    assert Path(made["key_file"]).exists()


def test_a_broker_with_another_key_than_the_context_says_is_not_talked_to(bus):
    endpoint, ann = bus.broker.address.endpoint, bus.broker.keys["ann"]
    bus.raw("bus", "context", "add", "false", endpoint, to_hex(ann.public))
    done = bus.run("false", "rtt", code=6)
    assert "does it have the key that is named?" in done.stderr


def test_options_may_stand_before_and_after_the_verb(bus):
    before = bus.raw("bus", "--context", "root", "--json", "keys", "list").stdout
    between = bus.raw("bus", "keys", "--context", "root", "list", "--json").stdout
    after = bus.raw("--json", "bus", "keys", "list", "--context", "root").stdout
    assert before == between == after
    assert len(json.loads(before)) >= 4


def test_a_context_of_that_name_is_kept_unless_told(bus):
    add = ["bus", "context", "add", "kept"]
    key = to_hex(bus.broker.address.key)
    bus.raw(*add, "tcp://127.0.0.1:1", key)
    done = bus.raw(*add, "tcp://127.0.0.1:2", key, code=9)
    assert b"replace it with --force" in done.stderr
    assert bus.contexts.load("kept").endpoint == "tcp://127.0.0.1:1"
    bus.raw(*add, "tcp://127.0.0.1:2", key, "--force")
    assert bus.contexts.load("kept").endpoint == "tcp://127.0.0.1:2"
    bus.raw("bus", "context", "rm", "kept")


def test_a_context_that_cannot_be_is_refused(bus):
    address = bus.broker.address
    bus.raw("bus", "context", "use", code=2)
    bus.raw("bus", "context", "use", "ann", "--none", code=2)
    bus.raw("bus", "context", "add", "x", "nonsense", to_hex(address.key), code=2)
    bus.raw("bus", "context", "add", "x", address.endpoint, code=2)


# Keys.


def test_a_key_is_allowed_with_rules_of_its_own_and_forbidden_at_once(bus):
    bus.broker.keys["eve"] = eve = bus.broker.allow("eve", "app")
    bus.broker.forbid("eve")
    bus.broker.reload()
    bus.know("eve")
    bus.run("eve", "rtt", code=4)
    made = bus.ask(
        "root", "keys", "allow", to_hex(eve.public), "--role", "app", "--name", "Eve",
        "--allow", "publish=home.>", "--deny", "publish=app.secret",
    )  # fmt: skip
    assert made["fingerprint"] == fingerprint(eve.public)
    bus.run("eve", "pub", "home.light", "on")
    bus.run("eve", "pub", "app.secret", "x", code=4)
    [entry] = [e for e in bus.ask("root", "keys", "list") if e["key"] == eve.public]
    assert (entry["name"], entry["allow"]["publish"]) == ("Eve", ["home.>"])
    with bus.running("eve", "sub", "app.>") as sub:
        bus.session_of("eve", subscriptions=1)
        bus.run("root", "keys", "forbid", to_hex(eve.public))
        code, _, err = sub.end()
    assert code == 4
    assert "viscript bus keys allow" in err
    assert (
        "not allowed anyway" in bus.run("root", "keys", "forbid", to_hex(eve.public), code=5).stderr
    )


def test_who_may_not_administer_is_told_so(bus):
    done = bus.run("op", "keys", "list", code=4)
    assert "$SYS.access.list" in done.stderr


# Enrolment.


def test_a_join_string_admits_once_and_makes_key_and_context(bus):
    token = bus.run("root", "token", "--role", "app", "--name", "thermo").stdout
    joined = json.loads(
        bus.raw("bus", "join", "-", "thermo", "--json", input=token.encode()).stdout
    )
    assert joined["roles"] == ["app"]
    assert joined["broker_key"] == bus.broker.address.key
    bus.run("thermo", "pub", "app.temperature", "21.5")
    [entry] = [e for e in bus.ask("root", "keys", "list") if e["key"] == joined["key"]]
    assert entry["name"] == "thermo"
    again = bus.raw("bus", "join", "-", "second", code=4, input=token.encode())
    assert b"token" in again.stderr
    bus.run("second", "rtt", code=5)


def test_the_token_is_never_in_an_error(bus):
    token = bus.ask("root", "token", "--role", "app")["join"]
    secret = token.rpartition("/")[2]
    for spoiled in (token[:-1], token.replace("viscript-join:", ""), token + "x"):
        done = bus.raw("bus", "join", "-", "third", code=2, input=spoiled.encode())
        assert secret[:20].encode() not in done.stderr


def test_a_join_string_in_a_file_admits_as_well(bus, tmp_path):
    file = tmp_path / "join.txt"
    file.write_text(bus.run("root", "token", "--role", "app").stdout)
    joined = json.loads(bus.raw("bus", "join", "--from", str(file), "filed", "--json").stdout)
    assert joined["name"] == "filed"
    bus.run("filed", "pub", "app.temperature", "21.5")
    bus.raw("bus", "join", "--from", str(tmp_path / "none"), "filed", code=5)


@pytest.mark.parametrize(
    "arguments",
    [
        ["JOIN", "fourth"], ["fourth", "JOIN"], ["-", "fourth", "JOIN"], ["--from", "JOIN", "fourth"],
        ["tcp://127.0.0.1:1", "fourth", "--broker-key", "JOIN"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_join_string_among_the_arguments_is_refused_unseen_with_the_way_out(bus, arguments):
    token = bus.ask("root", "token", "--role", "app")["join"]
    typed = [token if argument == "JOIN" else argument for argument in arguments]
    done = bus.raw("bus", "join", *typed, code=2, text=True)
    assert "viscript bus join - NAME" in done.stderr
    assert "--from FILE" in done.stderr
    assert token.rpartition("/")[2][:20] not in done.stderr
    bus.raw("bus", "join", "-", "fifth", input=token.encode())  # it was not used up


@pytest.mark.parametrize("arguments", [["sixth"], ["-", "sixth", "more"], ["nowhere", "sixth"]])
def test_what_else_join_cannot_mean_is_a_usage_error(bus, arguments):
    bus.raw("bus", "join", *arguments, code=2, input=b"")


def test_an_admin_decides_by_fingerprint(bus):
    address = bus.broker.address
    ask = ["bus", "join", address.endpoint, "guest", "--broker-key", to_hex(address.key)]
    assert bus.raw(*ask, code=4).stderr  # nobody may ask
    bus.run("root", "keys", "open", "60")
    waiting = bus.raw(*ask, code=7, text=True).stderr
    [asking] = bus.ask("root", "keys", "pending")["pending"]
    assert is_key(asking["key"])
    assert asking["fingerprint"] in waiting
    assert asking["fingerprint"] in bus.run("root", "keys", "pending").stdout
    bus.run("root", "keys", "accept", asking["fingerprint"], "--role", "app")
    bus.raw(*ask)
    bus.run("guest", "rtt")

    ask[3] = "stranger"
    bus.raw(*ask, code=7)
    [asking] = bus.ask("root", "keys", "pending")["pending"]
    bus.run("root", "keys", "reject", to_hex(asking["key"]))
    bus.raw(*ask, code=4)
    bus.run("root", "keys", "reject", to_hex(asking["key"]), code=5)
    bus.run("root", "keys", "open", "0")
    assert bus.ask("root", "keys", "pending")["open_until"] == 0


# Watching.


def test_sessions_are_listed_kicked_and_remembered(bus):
    with bus.running("bob", "sub", "app.>") as sub:
        bus.session_of("bob", subscriptions=1)
        key = bus.broker.keys["bob"].public
        [session] = [s for s in bus.ask("root", "sessions") if s["key"] == key]
        assert (session["roles"], session["subscriptions"]) == (["app"], 1)
        assert bus.ask("root", "kick", str(session["session"]), "--reason", "lunch") == {
            "kicked": 1
        }
        until(
            lambda: any(
                s["session"] == session["session"] for s in bus.ask("root", "sessions", "--closed")
            ),
            "the closed session",
        )
        [closed] = [
            s for s in bus.ask("root", "sessions", "--closed") if s["session"] == session["session"]
        ]
        assert (closed["num"], closed["reason"]) == (403, "kicked: lunch")
        assert "kicked: lunch" in bus.run("root", "sessions", "--closed").stdout
        sub.interrupt()
    assert "no session is 999999" in bus.run("root", "kick", "999999", code=5).stderr
    bus.run("root", "kick", "nonsense", code=2)
    bus.run("ann", "kick", "1", code=4)


def test_events_tell_what_is_refused_and_to_whom(bus):
    with bus.running("root", "events", "denied", "--json", "--count", "1") as events:
        bus.session_of("root", subscriptions=1)
        bus.run("ann", "pub", "secret.x", "x", code=4)
        code, out, _ = events.end()
    assert code == 0
    event = json.loads(out)
    assert (event["what"], event["key"]) == ("denied", bus.broker.keys["ann"].public)
    with bus.running("root", "events", "opened", "closed", "--count", "3") as events:
        bus.session_of("root", subscriptions=1)
        bus.run("ann", "rtt", "--count", "1")
        _, out, _ = events.end()
    assert {line.split("  ")[1] for line in out.splitlines()} == {"opened", "closed"}


def test_check_is_0_for_a_broker_that_is_well_and_counts_what_is_wrong(bus):
    told = bus.ask("root", "check")
    assert (told["state"], told["code"], told["problems"]) == ("ok", 0, [])
    assert told["broker"]["sessions"] >= 1
    assert bus.run("root", "check").stdout.startswith("OK: ")
    slow = bus.run("root", "check", "--slow", "0", code=1).stdout
    assert slow.startswith("WARNING: a round trip took ")
    assert bus.run("root", "check", "--too-slow", "0", code=2).stdout.startswith("CRITICAL: ")
    assert bus.run("ann", "check", code=3).stdout.startswith("UNKNOWN: ")
    assert bus.run("nobody-there", "check", code=3).stdout.startswith("UNKNOWN: ")


def test_check_is_2_for_a_broker_that_is_away(tmp_path):
    broker = Broker(tmp_path, root="admin")
    bus = BusCommand(broker, tmp_path / "user")
    told = bus.run("root", "check", "--json", code=2)
    assert json.loads(told.stdout)["state"] == "critical"
    assert broker.address.endpoint in told.stdout
    assert told.stderr == ""


def test_conformance_plays_checks_and_leaves_no_key(bus):
    before = len(bus.ask("root", "keys", "list"))
    told = bus.ask("root", "conformance", "--only", "PING")
    assert told["checks"]
    assert {check["outcome"] for check in told["checks"]} == {"passed"}
    assert len(bus.ask("root", "keys", "list")) == before
    folder, address = bus.broker.folder, bus.broker.address
    done = bus.raw(
        "bus", "conformance", address.endpoint, "--broker-key", to_hex(address.key), "--key",
        str(folder / "op.key"), "--other-key", str(folder / "ann.key"), "--only", "PING", text=True,
    )  # fmt: skip
    assert "0 failed" in done.stdout
    assert "--other-key" in bus.run("ann", "conformance", code=2).stderr
    bus.run("root", "conformance", "--only", "no check is called that", code=2)


def test_conformance_plays_a_stop_when_it_is_told_how(tmp_path):
    broker = Broker(tmp_path, root="admin", ann="app")
    broker.start()
    try:
        bus = BusCommand(broker, tmp_path / "user")
        told = bus.ask(
            "root", "conformance", "--only", "says NOTICE", "--other-key",
            str(broker.folder / "ann.key"), "--stop-command", f"kill {broker.process.pid}",
        )  # fmt: skip
        assert [check["outcome"] for check in told["checks"]] == ["passed"]
        refused = bus.run("root", "conformance", "--stop-command", "true", code=2)
        assert "--other-key" in refused.stderr
    finally:
        broker.stop()


# Completion.


def completed(bus, line: str) -> list[str]:
    environment = {
        "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - (not line.endswith(" "))),
        "_VISCRIPT_COMPLETE": "complete_bash",
    }  # fmt: skip
    before = bus.environment
    bus.environment = before | environment
    try:
        return bus.raw(code=None, text=True).stdout.split()
    finally:
        bus.environment = before


def test_the_shell_completes_contexts_and_services(bus):
    assert {"ann", "bob", "root"} <= set(completed(bus, "viscript bus --context "))
    assert completed(bus, "viscript bus rtt --context an") == ["ann"]
    with bus.running("bob", "reply", "app.complete.me") as server:
        server.line()
        assert completed(bus, "viscript bus --context root req app.comp") == ["app.complete.me"]
    assert completed(bus, "viscript bus --context nobody req app.") == []
    assert completed(bus, "viscript bus topics rm ") == []  # there is no broker in this home
