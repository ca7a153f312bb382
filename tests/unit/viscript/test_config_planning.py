"""What a changed file does to what runs: only what it concerns, and why."""

from pathlib import Path

from viscript import config
from viscript.config import planning, shown
from viscript.config.model import App
from viscript.config.planning import Effect
from viscript.rules import Plan

FILE = Path("/etc/viscript.yaml")


def parsed(apps: str, more: str = "") -> config.Config:
    return config.parse(f"apps: {{{apps}}}\n{more}".encode(), FILE)


def started(found: config.Config, **times: int) -> dict:
    return {name: [planning.compact(found.apps[name])] * count for name, count in times.items()}


def test_the_same_file_changes_nothing():
    old = parsed("a: {path: x, env: {A: 1}, ready: {tcp: 'h:1'}}, b: {path: 'python:y'}")
    outcome = planning.make(old, old, started(old, a=2, b=1))
    assert outcome == planning.Outcome((), ())
    assert outcome.orders == Plan()


def test_what_a_program_sees_only_when_it_starts_restarts_it_and_says_why():
    old = parsed("a: {path: x, args: [1], env: {A: 1}}, b: {path: x}")
    new = parsed("a: {path: x, args: [2], env: {A: 1, B: 2}}, b: {path: x}")
    outcome = planning.make(old, new, started(old, a=2, b=1))
    (plan,) = outcome.apps
    assert (plan.app, plan.does, plan.running) == ("a", "restart", 2)
    assert plan.why == "arguments, environment changed"
    assert [(x.key, x.before, x.after) for x in plan.changes] == [
        ("args", ["1"], ["2"]), ("env.B", None, "2"),
    ]  # fmt: skip
    assert outcome.orders == Plan(restart=("a",))


def test_rules_of_ours_change_while_it_runs():
    old = parsed("a: {path: x, restart: never}")
    new = parsed("a: {path: x, restart: always, desc: new, stop: [INT], groups: [g]}")
    outcome = planning.make(old, new, started(old, a=1))
    assert outcome.orders == Plan(update=("a",))
    assert {x.effect for x in outcome.apps[0].changes} == {Effect.LIVE}


def test_a_watchdog_needs_a_restart_another_probe_does_not():
    old = parsed("a: {path: x}, b: {path: x}")
    new = parsed("a: {path: x, alive: {notify: true}}, b: {path: x, alive: {tcp: 'h:1'}}")
    outcome = planning.make(old, new, started(old, a=1, b=1))
    assert outcome.orders == Plan(restart=("a",), update=("b",))
    assert outcome.apps[0].why == "its watchdog changed"


def test_what_is_not_worth_a_restart_waits_for_the_next_start():
    old, new = parsed("a: {path: x}"), parsed("a: {path: x, log: {files: 9}}")
    (plan,) = planning.make(old, new, started(old, a=1)).apps
    assert plan.does == "change"
    assert [(x.key, x.effect) for x in plan.changes] == [("log.files", Effect.NEXT)]
    # It still waits after it was taken over, and is gone once it was started again.
    taken = planning.taken(planning.compact(old.apps["a"]), new.apps["a"])
    assert planning.make(new, new, {"a": [taken]}).apps == (plan,)
    assert planning.make(new, new, started(new, a=1)).apps == ()


def test_what_does_not_run_is_not_restarted():
    old, new = parsed("a: {path: x}"), parsed("a: {path: y}")
    outcome = planning.make(old, new, {})
    assert [(x.does, x.why) for x in outcome.apps] == [("change", "")]
    assert outcome.orders == Plan()


def test_new_apps_start_if_they_are_marked_and_old_ones_stop_if_they_are_gone():
    old = parsed("gone: {path: x}, idle: {path: x}, marked: {path: x}")
    new = parsed("marked: {path: x, autostart: true}, a: {path: x, autostart: true}, b: {path: x}")
    outcome = planning.make(old, new, started(old, gone=1))
    assert {x.app: (x.does, x.why) for x in outcome.apps} == {
        "gone": ("remove", "no longer configured"),
        "idle": ("remove", ""),
        "marked": ("change", "now marked autostart"),
        "a": ("add", "new and marked autostart"),
        "b": ("add", ""),
    }
    assert outcome.orders == Plan(stop=("gone",), start=("marked", "a"))


def test_the_number_of_instances_is_scaled_without_a_restart():
    old, new = parsed("a: {path: x}"), parsed("a: {path: x, instances: 3}")
    outcome = planning.make(old, new, started(old, a=1))
    assert outcome.orders == Plan(update=("a",), scale=(("a", 3),))


def test_what_runs_is_compared_with_what_it_was_started_with():
    """The daemon may have read the changed file before: that does not hide what must be restarted."""
    old, new = parsed("a: {path: x, nice: 1}"), parsed("a: {path: x, nice: 2}")
    outcome = planning.make(new, new, started(old, a=1))
    assert outcome.orders == Plan(restart=("a",))
    assert outcome.apps[0].why == "priority changed"
    # Launches of daemons that did not write it down run as the old file says.
    assert planning.make(old, new, {"a": [None]}).orders == Plan(restart=("a",))


def test_other_contents_of_its_files_of_variables_restart_an_app():
    found = parsed("a: {path: x, env_file: [a.env]}, b: {path: x}")
    before = {"a": [planning.compact(found.apps["a"], "11111111")], **started(found, b=1)}
    (plan,) = planning.make(found, found, before, {"a": "22222222", "b": ""}).apps
    assert (plan.app, plan.does, plan.why) == ("a", "restart", "environment changed")
    assert [x.key for x in plan.changes] == ["env_file.contents"]
    # Not when they cannot be read just now, or were not looked at when it started.
    for now, then in (("", "11111111"), ("22222222", "")):
        before = {"a": [planning.compact(found.apps["a"], then)]}
        assert planning.make(found, found, before, {"a": now}).apps == ()


def test_one_that_was_removed_and_came_back_is_compared_too():
    old, new = parsed("b: {path: x}"), parsed("a: {path: x}, b: {path: x}")
    before = {"a": [{"path": "y"}]}
    assert planning.make(old, new, before).orders == Plan(restart=("a",))


def test_the_broker_keeps_its_place_until_everything_is_down():
    old = parsed("a: {path: x}")
    new = parsed("a: {path: x}", "settings: {broker: {endpoint: 'tcp://127.0.0.1:7600'}}")
    outcome = planning.make(old, new, started(old, a=1))
    assert outcome.apps == ()
    assert [(x.key, x.after) for x in outcome.settings] == [
        ("settings.broker.endpoint", "tcp://127.0.0.1:7600")
    ]


def test_every_key_has_been_thought_about():
    live = {
        "name", "place", "places", "desc", "help", "daemon", "autostart", "instances", "restart",
        "after", "stop", "reload", "short", "groups",
    }  # fmt: skip
    keys = set(App.__struct_fields__)
    assert live | planning.WHY.keys() | {"log", "ready"} == keys
    assert shown.app(App("a", "x", "")).keys() == keys - {"name", "place", "places"}
