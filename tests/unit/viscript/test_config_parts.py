"""The parts of an entry: what they mean, and what contradicts itself."""

import json
import signal
from pathlib import Path

import jsonschema
import pytest
import yaml

from viscript import config
from viscript.config import values
from viscript.errors import BadConfig
from viscript.rules import After, LogRule, Probe, RestartRule, StopStep

FILE = Path("/etc/viscript.yaml")
SCHEMA = json.loads(config.schema().read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def entry(words: str) -> config.App:
    """The app of a file whose only entry has these keys besides its path."""
    text = f"apps:\n  other: {{path: y}}\n  a: {{path: x, {words}}}\n"
    VALIDATOR.validate(yaml.safe_load(text))
    return config.parse(text.encode(), FILE).apps["a"]


def complaint(words: str) -> str:
    with pytest.raises(BadConfig) as caught:
        config.parse(f"apps:\n  other: {{path: y}}\n  a: {{path: x, {words}}}\n".encode(), FILE)
    place, _, message = str(caught.value).partition(": ")
    assert place.startswith(f"{FILE}:3:"), place
    return message


def test_without_a_word_everything_is_as_it_always_was():
    app = entry("")
    assert app.restart == RestartRule("never", 0.5, 60.0, 0, 60.0, (0,), ())
    assert (app.ready, app.alive, app.after) == (Probe("none"), None, ())
    assert app.stop == (StopStep(signal.SIGTERM, 5.0),)
    assert app.log == LogRule(10 << 20, 3, 0.0, 0, gzip=False)
    assert (app.instances, app.nice, app.umask, app.reload) == (1, 0, None, None)
    assert (app.user, app.group, app.terminal, app.limits) == (None, None, False, {})


def test_a_restart_rule_is_a_word_or_a_mapping():
    assert entry("restart: always").restart == RestartRule("always")
    words = "policy: on-failure, delay: 250ms, cap: 2m, give_up: 5, stable: 1h, success: [0, 3]"
    assert entry(f"restart: {{{words}, never_codes: [78]}}").restart == RestartRule(
        "on-failure", 0.25, 120.0, 5, 3600.0, (0, 3), (78,)
    )  # fmt: skip


def test_an_app_comes_after_others_that_have_started_are_ready_or_completed():
    assert entry("after: [other]").after == (After("other", "ready"),)
    assert entry("after: [{app: other, until: completed}]").after == (After("other", "completed"),)
    assert entry("after: [{app: other}]").after == (After("other", "ready"),)


@pytest.mark.parametrize(
    ("words", "probe"),
    [
        ("bus", Probe("bus")),
        ("none", Probe("none")),
        ("{bus: true, timeout: 5s}", Probe("bus", timeout=5.0)),
        ("{tcp: 'localhost:80', every: 500ms}", Probe("tcp", "localhost:80", every=0.5)),
        ("{tcp: '[::1]:8{i}'}", Probe("tcp", "[::1]:8{i}")),
        ("{http: 'http://h/x', failures: 9}", Probe("http", "http://h/x", failures=9)),
        ("{exec: [test, -e, 08]}", Probe("exec", ("test", "-e", "08"))),
        ("{log: 'ready in \\d+', delay: 1}", Probe("log", r"ready in \d+", delay=1.0)),
        ("{notify: true}", Probe("notify")),
    ],
)
def test_readiness_is_asked_in_many_ways(words, probe):
    assert entry(f"ready: {words}").ready == probe


def test_liveness_is_asked_apart_from_readiness():
    app = entry("ready: bus, alive: {tcp: 'localhost:80'}")
    assert (app.ready.kind, app.alive) == ("bus", Probe("tcp", "localhost:80"))
    assert entry("alive: none").alive is None


def test_stop_steps_are_signals_each_with_its_wait():
    app = entry("stop: [{signal: INT, wait: 1s}, SIGTERM, {signal: 9}]")
    assert app.stop == (
        StopStep(signal.SIGINT, 1.0), StopStep(signal.SIGTERM, 10.0), StopStep(signal.SIGKILL, 10.0),
    )  # fmt: skip


def test_limits_are_numbers_sizes_and_seconds():
    words = "limits: {nofile: 1024, as: 1GiB, core: 0, cpu: 1h, memlock: unlimited, stack: 8192KiB}"
    assert entry(words).limits == {
        "nofile": 1024, "as": 1 << 30, "core": 0, "cpu": 3600, "memlock": values.UNLIMITED,
        "stack": 8 << 20,
    }  # fmt: skip


def test_whom_an_app_runs_as_and_how():
    app = entry("user: www-data, group: 33, nice: -5, umask: 027, terminal: true, reload: sigusr1")
    assert (app.user, app.group, app.nice, app.umask) == ("www-data", "33", -5, 0o027)
    assert (app.terminal, app.reload) == (True, signal.SIGUSR1)
    assert entry("umask: '0o077'").umask == 0o077
    more = entry("instances: 3, groups: [web, front], env_file: [a.env, b.env]")
    assert (more.instances, more.groups, more.env_file) == (3, ("web", "front"), ("a.env", "b.env"))


def test_logs_are_kept_as_told():
    words = "log: {size: 1MiB, files: 5, age: 7d, total: 3MB, gzip: true}"
    assert entry(words).log == LogRule(1 << 20, 5, 7 * 86400.0, 3_000_000, gzip=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("restart: {delay: 1s}", "apps.a.restart: the key 'policy' is missing"),
        ("restart: {policy: always, dely: 1s}", "did you mean 'delay'?"),
        ("restart: {policy: always, delay: 1x}", "'1x' is not a duration: seconds, or 500ms"),
        ("restart: {policy: always, delay: 2m}", "a delay of 120 s is over the cap of 60 s"),
        ("restart: {policy: always, success: [256]}", "success[0]: '256' is not a whole number"),
        ("restart: {policy: never, give_up: 3}", "means nothing with the policy never"),
        ("after: [{app: other, until: redy}]", "did you mean 'ready'?"),
        ("after: [othr]", "no app 'othr'; did you mean 'other'?"),
        ("ready: {}", "exactly one of tcp, http, exec, log, notify, bus, not none"),
        ("ready: {tcp: 'a:1', bus: true}", "not tcp and bus"),
        ("ready: {tcp: localhost}", "is not HOST:PORT"),
        ("ready: {tcp: 'a:99999'}", "is not HOST:PORT"),
        ("ready: {http: 'ftp://x'}", "is not a URL"),
        ("ready: {exec: []}", "the program to run is missing"),
        ("ready: {log: '('}", "is not a regular expression"),
        ("ready: {notify: false}", "only true makes sense"),
        ("ready: {bus: true, timeout: 0}", "must be longer than 0 s"),
        ("alive: {log: x}", "a line in the log cannot tell that an app is still well"),
        ("stop: []", "a list of steps like {signal: TERM, wait: 10s}"),
        ("stop: [KILL, TERM]", "stop[0]: nothing can follow KILL"),
        ("stop: [TREM]", "'TREM' is not a signal"),
        ("stop: [STOP]", "'STOP' does not end a program"),
        ("stop: [{wait: 1s}]", "the key 'signal' is missing"),
        ("reload: KILL", "cannot be caught by a program"),
        ("instances: 1001", "is not a whole number from 0 to 1000"),
        ("instances: 0, autostart: true", "there is nothing to start (instances: 0)"),
        ("limits: {nofiles: 1}", "did you mean 'nofile'?"),
        ("limits: {as: lots}", "is not a size"),
        ("limits: {cpu: 1500ms}", "whole seconds only"),
        ("nice: 20", "from -20 to 19"),
        ("umask: 888", "is not a umask"),
        ("umask: 7777", "is not a umask"),
        ("user: 'a b'", "is not the name or number of a user"),
        ("groups: ['@x']", "'@x' is not a name"),
        ("env_file: ['']", "env_file[0]: empty"),
        ("log: {size: 1KiB}", "less than 4096 bytes is no log file"),
        ("log: {size: 9MB, total: 8MB}", "a total of 8000000 bytes is less than one file"),
        ("log: {files: 1, gzip: true}", "there is nothing to compress"),
        ("log: {age: 3651d}", "longer than ten years"),
        ("log: {size: 99999999TiB}", "is more than 8 EiB"),
        ("desc: !secret x", "the tag '!secret' means nothing here"),
        ("<<: {desc: x}", "merging with '<<' is not supported"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(words, message):
    assert message in complaint(words)


def test_waiting_for_what_never_completes_is_an_error():
    text = "apps:\n  a: {path: x, after: [{app: b, until: completed}]}\n  b: {path: x, restart: always}\n"
    with pytest.raises(BadConfig, match=r"2:24: apps\.a\.after: 'b' never completes"):
        config.parse(text.encode(), FILE)
    text = "apps:\n  a: {path: x, after: [b]}\n  b: {path: x, instances: 0}\n"
    with pytest.raises(BadConfig, match="'b' never runs"):
        config.parse(text.encode(), FILE)


def test_all_problems_of_a_file_are_found_at_once():
    text = "apps:\n  a: {pth: x}\n  b: {path: x, nice: 99}\n  c: {path: x}\nsettings: {runHeadless: 7}\n"
    with pytest.raises(config.BadFile) as caught:
        config.parse(text.encode(), FILE)
    assert [x.split(": ")[0] for x in caught.value.problems] == [
        f"{FILE}:2:7", f"{FILE}:3:22", f"{FILE}:5:25",
    ]  # fmt: skip
    assert str(caught.value).endswith("(and 2 more: viscript config check)")


def test_all_that_is_wrong_with_an_entry_is_found_in_the_order_of_the_file():
    text = """\
apps:
  a:
    nice: 99
    pth: x
    nice: 1
    restart: {policy: alwys}
    after: 7
    short: 8
"""
    with pytest.raises(config.BadFile) as caught:
        config.parse(text.encode(), FILE)
    assert [x.removeprefix(f"{FILE}:").split(";")[0] for x in caught.value.problems] == [
        "3:11: apps.a.nice: '99' is not a whole number from -20 to 19",
        "4:5: apps.a: unknown key 'pth'",
        "5:5: apps.a: duplicate key 'nice', first in line 3",
        "6:23: apps.a.restart.policy: 'alwys' is not one of never, on-failure, always",
        "7:12: apps.a.after: must be a list, not '7'",
        "8:12: apps.a.short: must be a list, not '8'",
    ]


def test_no_more_than_a_hundred_problems_are_told_of_a_file():
    one = ", ".join(f"k{number}: 1" for number in range(5000))
    many = "\n".join(f"  a{number}: {{pth: x}}" for number in range(5000))
    for text in (f"apps:\n  a: {{{one}}}\n", f"apps:\n{many}\n"):
        with pytest.raises(config.BadFile) as caught:
            config.parse(text.encode(), FILE)
        assert len(caught.value.problems) == 100


def test_patterns_of_the_published_schema_are_those_of_the_reader():
    definitions = SCHEMA["$defs"]
    for name, pattern in (
        ("name", values.NAME), ("duration", values.DURATION), ("size", values.SIZE),
        ("signal", values.SIGNAL), ("account", values.ACCOUNT),
    ):  # fmt: skip
        assert definitions[name]["pattern"] == f"^(?:{pattern.pattern})$"
    probe = definitions["probe"]["anyOf"][1]["properties"]
    assert probe["tcp"]["pattern"] == f"^(?:{values.HOST_PORT.pattern})$"
    assert probe["http"]["pattern"] == f"^(?:{values.URL.pattern})$"
    app = definitions["app"]["properties"]
    assert app["umask"]["pattern"] == f"^(?:{values.UMASK.pattern})$"
    assert definitions["limits"]["properties"].keys() == values.LIMITS.keys()
