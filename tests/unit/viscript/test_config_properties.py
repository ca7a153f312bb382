"""Whatever the file holds: it loads or is refused with a place, and the published schema says the same."""

import json
import re
from pathlib import Path

import jsonschema
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from viscript import config, envfile
from viscript.config import planning, shown
from viscript.config.entry import KEYS
from viscript.config.values import LIMITS
from viscript.errors import BadConfig

FILE = Path("/etc/viscript.yaml")
VALIDATOR = jsonschema.Draft202012Validator(json.loads(config.schema().read_text()))
# Other tests may need the processor: how long one example takes says nothing.
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Plain(yaml.SafeLoader):
    """As editors load it, where a date is text."""


Plain.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def loaded(text: str) -> config.Config | None:
    """None when it is refused, which it must be with a place in the file."""
    try:
        return config.parse(text.encode(errors="surrogatepass"), FILE)
    except BadConfig as error:
        assert str(error).startswith(f"{FILE}:")  # noqa: PT017 - its message is what is tested
        return None


def dumped(tree: object) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


# What comes in files, wanted or not.

SUBKEYS = (
    *KEYS, *LIMITS, "policy", "delay", "cap", "give_up", "stable", "success", "never_codes", "app",
    "until", "tcp", "http", "exec", "notify", "bus", "timeout", "every", "failures", "signal",
    "wait", "size", "files", "age", "total", "gzip", "broker", "endpoint", "runHeadless",
)  # fmt: skip
WORDS = (
    "x", "a", "b", "on-failure", "always", "never", "bus", "none", "10s", "1.5h", "10MiB", "TERM",
    "KILL", "022", "-1", "0", "unlimited", "ready", "completed", "h:80", "http://h/", "(", "{i}",
    "tcp://127.0.0.1:7600", "", "2020-01-01", "1e3", "0x10", "1_000", "nan", ".inf", "\u0085", "\x1b[2J",
)  # fmt: skip
scalars = st.one_of(
    st.sampled_from(WORDS), st.integers(-(1 << 70), 1 << 70), st.booleans(), st.none(), st.floats(),
    st.text(max_size=8),
)  # fmt: skip
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(SUBKEYS) | scalars, inner, max_size=4),
    ),
    max_leaves=8,
)
entries = st.fixed_dictionaries({"path": st.sampled_from(["x", "python:a.b"])}).flatmap(
    lambda entry: st.dictionaries(st.sampled_from(KEYS), trees, max_size=4).map(
        lambda more: {**more, **entry}
    )
)
files = st.fixed_dictionaries(
    {"apps": st.dictionaries(st.sampled_from(["a", "b", "c.d", "1"]), entries | trees, max_size=3)},
    optional={"settings": trees},
)


@RELAXED
@given(st.binary(max_size=300))
@example(b"%YAML 9.9\n---\n")
@example(b"apps: &a {x: *a}\n")
@example(b"\xff\xfe\x00a")
@example(b"--- a\n--- b\n")
@example(b"apps:\n  a: {path: !!binary eA==}\n")
@example(b"apps:\n  a: {path: x, daemon: !!bool maybe}\n")
@example(b"apps:\n  a: {path: x, default_args: !!set {a}}\n")
@example(b"? [apps]\n: x\n")
def test_any_bytes_load_or_are_refused(data):
    try:
        config.parse(data, FILE)
    except BadConfig as error:
        assert str(error).startswith(f"{FILE}:")  # noqa: PT017 - its message is what is tested


@RELAXED
@given(st.text(alphabet="apsth: {}[],-&*!|>'\"\\\n\t#%@`?~<=0a", max_size=80))
def test_any_yaml_loads_or_is_refused(text):
    loaded(f"apps:\n  a:\n    path: x\n    {text}\n")
    loaded(text)


@RELAXED
@given(files)
def test_what_loads_is_valid_by_the_published_schema(tree):
    text = dumped(tree)
    if loaded(text) is not None:
        VALIDATOR.validate(yaml.load(text, Plain))


# What is right.

names = st.from_regex(r"[a-z_][a-z0-9_.-]{0,5}", fullmatch=True)
times = st.sampled_from([0.5, 1, 30, "250ms", "10s", "1.5h", "7d"])
sizes = st.sampled_from([4096, "64KiB", "10MiB", "1.5MB", "2GiB"])
codes = st.lists(st.integers(0, 255), max_size=3)
signals = st.sampled_from(["TERM", "SIGINT", "quit", "USR1", 15])
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
details = {"timeout": times, "every": times, "failures": st.integers(1, 1000), "delay": times}
targets = st.one_of(
    st.fixed_dictionaries({"tcp": st.sampled_from(["h:80", "[::1]:8{i}"])}, optional=details),
    st.fixed_dictionaries({"http": st.just("http://h/x?y=1")}, optional=details),
    st.fixed_dictionaries(
        {"exec": st.lists(texts, max_size=2).map(lambda words: ["test", *words])}, optional=details
    ),
    st.fixed_dictionaries({"notify": st.just(value=True)}, optional=details),
    st.fixed_dictionaries({"bus": st.just(value=True)}, optional=details),
)
logged = st.fixed_dictionaries({"log": st.sampled_from(["ready", "x+", "^up$"])}, optional=details)
limits = st.fixed_dictionaries(
    {},
    optional={
        word: {
            "count": st.integers(0, 1 << 20), "bytes": sizes, "seconds": st.sampled_from([1, "2h"]),
        }[kind] | st.just("unlimited")
        for word, kind in LIMITS.items()
    },
)  # fmt: skip
right = st.fixed_dictionaries(
    {"path": st.sampled_from(["x", "bin/x", "python:a.b"])},
    optional={
        "daemon": st.booleans(), "desc": texts, "help": texts, "cwd": texts,
        "default_args": st.lists(texts | st.integers() | st.booleans(), max_size=3),
        "args": st.lists(texts, max_size=3), "autostart": st.booleans(),
        "env": st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9]{0,4}", fullmatch=True), texts),
        "env_file": st.lists(st.sampled_from(["a.env", "~/b"])), "instances": st.integers(0, 1000),
        "restart": st.sampled_from(["never", "on-failure", "always"])
        | st.fixed_dictionaries(
            {"policy": st.sampled_from(["on-failure", "always"])},
            optional={
                "delay": st.sampled_from([0, "1s", 0.1]), "cap": st.sampled_from([1, "1m"]),
                "give_up": st.integers(0, 9), "stable": times, "success": codes,
                "never_codes": codes,
            },
        ),
        "ready": st.sampled_from(["bus", "none"]) | targets | logged,
        "alive": st.sampled_from(["bus", "none"]) | targets,
        "stop": st.lists(
            signals | st.fixed_dictionaries({"signal": signals}, optional={"wait": times}),
            min_size=1, max_size=3,
        ),
        "reload": st.sampled_from(["HUP", "SIGUSR2", 1]),
        "role": st.sampled_from(["app", "node", "manager", "observer"]),
        "groups": st.lists(names, max_size=2), "limits": limits, "nice": st.integers(-20, 19),
        "user": st.sampled_from(["www-data", 33]), "group": st.sampled_from(["adm", 4]),
        "umask": st.sampled_from(["022", "0o077", "777"]), "terminal": st.booleans(),
        "log": st.fixed_dictionaries(
            {}, optional={"size": sizes, "files": st.integers(2, 1000), "age": times,
                          "total": st.just("4GiB"), "gzip": st.booleans()},
        ),
    },
)  # fmt: skip


@RELAXED
@given(right, right)
def test_what_is_right_loads_is_valid_and_can_be_shown_as_it_is(one, two):
    tree = {"apps": {"a": one, "b": {**two, "after": [{"app": "a", "until": "started"}]}}}
    assume(one.get("instances") != 0)
    assume(two.get("instances") != 0 or not two.get("autostart"))
    assume("\x85" not in str(tree))
    text = dumped(tree)
    VALIDATOR.validate(yaml.load(text, Plain))
    found = config.parse(text.encode(), FILE)
    again = config.parse(dumped(shown.file(found)).encode(), FILE)
    assert [_unplaced(x) for x in again.apps.values()] == [
        _unplaced(x) for x in found.apps.values()
    ]
    for row in shown.rows(found.apps["a"]):
        assert row.origin == shown.DEFAULT or re.fullmatch(f"{FILE}:[0-9]+", row.origin)


def _unplaced(app: config.App) -> config.App:
    return replace(app, place="", places={})


@RELAXED
@given(right, st.sampled_from(KEYS), st.data())
def test_what_is_wrong_is_refused_by_both(entry, key, data):
    """One value of a kind that its key cannot have, or one key that there is not."""
    listed = {"default_args", "args", "env_file", "after", "stop", "short", "groups"}
    mapped = {"env", "limits", "log"}
    bad = {1: 2} if key not in mapped | {"restart", "ready", "alive"} else [1]
    if key in listed | mapped | {"daemon", "autostart", "terminal", "restart", "role", "ready"}:
        bad = data.draw(st.sampled_from([bad, "surely not", 7.5]))
    wrong = data.draw(st.sampled_from([{**entry, key: bad}, {**entry, f"{key}x": 1}]))
    text = dumped({"apps": {"a": wrong}})
    assert loaded(text) is None
    assert not VALIDATOR.is_valid(yaml.load(text, Plain))


@RELAXED
@given(right, right, st.integers(0, 2))
def test_a_plan_that_was_carried_out_leaves_nothing_but_what_waits_for_a_start(one, two, running):
    assume(all(x.get("instances") != 0 for x in (one, two)))
    old, new = (config.parse(dumped({"apps": {"a": x}}).encode(), FILE) for x in (one, two))
    before = planning.compact(old.apps["a"])
    assert planning.make(old, old, {"a": [before] * running} if running else {}).apps == ()
    outcome = planning.make(old, new, {"a": [before] * running} if running else {})
    orders = outcome.orders
    assert not (set(orders.restart) & set(orders.update))
    assert running or not orders.restart + orders.update + orders.stop
    after = planning.taken(before, new.apps["a"])
    if orders.restart:
        after = planning.compact(new.apps["a"])
    left = planning.make(new, new, {"a": [after]} if running else {}).apps
    assert {change.effect for app in left for change in app.changes} <= {planning.Effect.NEXT}


# Files of environment variables.


@RELAXED
@given(st.text(max_size=100))
@example('A="\\')
@example("A='x")
@example("=x")
def test_any_file_of_variables_is_read_or_refused(text):
    try:
        found = envfile.parse(text, FILE)
    except BadConfig as error:
        assert str(error).startswith(f"{FILE}:")  # noqa: PT017 - its message is what is tested
    else:
        assert all(isinstance(value, str) and "\0" not in value for value in found.values())


@RELAXED
@given(st.dictionaries(names.map(lambda x: re.sub("[.-]", "_", x)), texts, max_size=4))
def test_quoted_variables_come_as_they_were(variables):
    def quoted(value: str) -> str:
        return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'

    lines = "\n".join(f"{name}={quoted(value)}" for name, value in variables.items())
    assert envfile.parse(lines, FILE) == variables
