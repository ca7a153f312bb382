"""The config file: every complaint names file, line and column; what is fine is taken as written."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from viscript import catalog, config
from viscript.errors import BadConfig
from viscript.rules import After

FILE = Path("/etc/viscript.yaml")
REPOSITORY = Path(__file__).parents[3]

IN_THE_SCHEMA_OF_2017 = """\
# a file as the original program had it
apps:
  # commented out: {}
  mesh-node:
    daemon: true
    desc: DESCRIPTION GOES HERE
    path: bin/mesh/run-node
    default_args: []
    help: |
        [1] Host for control messages.

        Full Example Command:
            start mesh-node 111.222.123.44:5000 true 8000 node0
  wallet-cli:
    daemon: false
    path: /bin/wallet/cli
    default_args:
    desc: Command line interface
settings:
  verboseInput: false   # Will print key and mouse input if set to true
  verifyParsingByPrinting: true
  runHeadless: false
"""


def parse(text: str) -> config.Config:
    return config.parse(text.encode(), FILE)


def complaint(text: str | bytes) -> str:
    with pytest.raises(BadConfig) as caught:
        config.parse(text if isinstance(text, bytes) else text.encode(), FILE)
    return str(caught.value)


def test_the_original_schema_loads():
    found = parse(IN_THE_SCHEMA_OF_2017)
    node, wallet = found.apps["mesh-node"], found.apps["wallet-cli"]
    assert node.daemon
    assert node.default_args == ()
    assert "Full Example Command:\n    start mesh-node" in node.help
    assert node.place == f"{FILE}:7"
    assert wallet.default_args == ()
    assert wallet.restart.policy == "never"
    assert wallet.ready.kind == "none"
    assert found.settings["verifyParsingByPrinting"] is True
    assert found.endpoint is None


def test_scalars_stay_as_they_are_written():
    found = parse("apps: {a: {path: p, default_args: [08, yes, 1e3, 'x y', 0x1F, ~x]}}")
    assert found.apps["a"].default_args == ("08", "yes", "1e3", "x y", "0x1F", "~x")


def test_a_python_path_is_ready_on_the_bus():
    found = parse("apps: {a: {path: 'python:x.y'}, b: {path: 'python:x.y', ready: none}}")
    assert found.apps["a"].ready.kind == "bus"
    assert found.apps["b"].ready.kind == "none"


def test_all_optional_keys():
    entry = parse(
        """
apps:
  first: {path: x}
  a:
    path: x
    autostart: true
    args: [1]
    env: {NAME: 5}
    cwd: /tmp
    restart: always
    after: [first]
    role: node
    short: [aa]
settings: {broker: {endpoint: "tcp://127.0.0.1:7600"}}
"""
    ).apps["a"]
    assert (entry.autostart, entry.args, dict(entry.env), entry.cwd) == (
        True, ("1",), {"NAME": "5"}, "/tmp",
    )  # fmt: skip
    assert (entry.restart.policy, entry.after, entry.role, entry.short) == (
        "always", (After("first"),), "node", ("aa",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("apps:\n  a: {path: x\n  b: 1\n", "3:4", "not YAML"),
        ("apps:\n\ta: 1\n", "2:1", "not YAML"),
        ("", "1:1", "the file is empty"),
        ("- apps\n", "1:1", "must be a mapping"),
        ("settings: {}\n", "1:1", "'apps' is missing"),
        ("aps: {}\n", "1:1", "unknown key 'aps'; did you mean 'apps'?"),
        ("apps:\n  a:\n    path: x\n    autostrt: true\n", "4:5", "did you mean 'autostart'?"),
        ("apps:\n  a:\n    path: x\n    path: y\n", "4:5", "duplicate key 'path', first in line 3"),
        ("apps:\n  a: {path: x}\n  a: {path: y}\n", "3:3", "duplicate key 'a', first in line 2"),
        ("apps:\n  a: {desc: x}\n", "2:6", "'path' is missing"),
        ("apps:\n  a: {path: ''}\n", "2:13", "empty"),
        ("apps:\n  a: {path: [x]}\n", "2:13", "must be text, not a list"),
        ("apps:\n  a: {path: x, daemon: 1}\n", "2:24", "must be true or false, not '1'"),
        ("apps:\n  a: {path: x, default_args: y}\n", "2:30", "must be a list, not 'y'"),
        ("apps:\n  a: {path: x, args: [[y]]}\n", "2:23", "args[0]: must be text"),
        ("apps:\n  a: {path: x, args: [null]}\n", "2:23", "not nothing"),
        ("apps:\n  a: {path: x, restart: alwys}\n", "2:25", "did you mean 'always'?"),
        ("apps:\n  a: {path: x, role: admin}\n", "2:22", "'admin' is not one of"),
        ("apps:\n  a: {path: x, env: {VISCRIPT_ID: 1}}\n", "2:22", "set by viscript itself"),
        ("apps:\n  a: {path: x, env: {1A: 1}}\n", "2:22", "is not a name"),
        ("apps:\n  7: {path: x}\n", "2:3", "app name '7'"),
        ("apps:\n  ../a: {path: x}\n", "2:3", "app name '../a'"),
        ("apps:\n  a: {path: x, after: [b]}\n  bb: {path: x}\n", "2:24", "no app 'b'"),
        ("apps:\n  a: {path: x, after: [a]}\n", "2:6", "a circle: a -> a"),
        ("apps:\n  a: {path: x, short: [b]}\n  b: {path: x}\n", "2:24", "is taken by 'b'"),
        ("apps: {}\nsettings: {broker: {endpoint: 7600}}\n", "2:31", "is not tcp://HOST:PORT"),
        ("apps: {}\nsettings: {runHeadles: true}\n", "2:12", "did you mean 'runHeadless'?"),
        ('apps:\n  a: {path: "x\\0y"}\n', "2:13", "NUL"),
    ],
)  # fmt: skip
def test_complaints_name_the_place(text, place, words):
    message = complaint(text)
    assert message.startswith(f"{FILE}:{place}: "), message
    assert words in message


def test_bytes_that_are_no_text():
    assert f"{FILE}:2: not UTF-8" in complaint(b"apps: {}\n# \xff\n")


def test_nesting_and_aliases_are_bounded():
    deep = complaint("apps: " + "[" * 20000)
    assert "not YAML" in deep
    entries = "\n".join(
        f"  e{i}: {{path: x, args: &a{i} [{', '.join('abcdefghij' * 20)}]}}" for i in range(600)
    )
    assert "more than 100000 values" in complaint(f"apps:\n{entries}\n")


def test_a_missing_file_is_named():
    with pytest.raises(BadConfig, match=r"/no/such\.yaml: cannot be read: No such file.*--config"):
        config.load(Path("/no/such.yaml"))


def test_where_the_file_is_looked_for(tmp_path):
    own = tmp_path / "config.yaml"
    assert config.find(None, {}, own) == config.shipped()
    own.touch()
    assert config.find(None, {}, own) == own
    assert config.find(None, {"VISCRIPT_CONFIG": "/b.yaml"}, own) == Path("/b.yaml")
    assert config.find("/a.yaml", {"VISCRIPT_CONFIG": "/b.yaml"}, own) == Path("/a.yaml")


def test_the_shipped_file_loads():
    found = config.load(config.shipped())
    mesh, pair = ["node-manager", "alpha", "beta"], ["socks-server", "socks-client"]
    others = ["vpn-client", "vpn-server", "forward-client", "forward-server", "apptracker"]
    assert list(found.apps) == [*mesh, *pair, *others]
    assert [name for name, app in found.apps.items() if app.autostart] == [*mesh, *pair]


def test_published_schema_agrees_with_the_loader():
    schema = json.loads((REPOSITORY / "config" / "config.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(yaml.safe_load(config.shipped().read_text()))
    validator.validate(yaml.safe_load(IN_THE_SCHEMA_OF_2017))
    known = {x for x in config.App.__struct_fields__ if x not in ("name", "place", "places")}
    assert schema["$defs"]["app"]["properties"].keys() == known
    for bad in (
        "apps: {a: {}}", "apps: {a: {path: x, y: 1}}", "apps: {a: {path: x, args: y}}",
        "apps: {a: {path: x, alive: {log: y}}}",
    ):  # fmt: skip
        complaint(bad)
        assert not validator.is_valid(yaml.safe_load(bad))


def test_all_names_that_cannot_be_meant_are_told_at_once(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "apps:\n  a: {path: x, after: [nosuch, neither]}\n  b: {path: x, short: [a], after: [c]}\n"
        "  c: {path: x, after: [b]}\n"
    )
    with pytest.raises(config.BadFile) as caught:
        config.load(tmp_path / "c.yaml")
    told = [problem.partition("apps.")[2] for problem in caught.value.problems]
    assert told == [
        "a.after: no app 'nosuch'", "a.after: no app 'neither'",
        "b.short: 'a' is taken by 'a'", "b.after: a circle: b -> c -> b",
    ]  # fmt: skip


def test_a_long_chain_is_read_and_put_into_order(tmp_path):
    count = 5000
    apps = "".join(f"  a{n}: {{path: x, after: [a{n + 1}]}}\n" for n in range(count))
    (tmp_path / "c.yaml").write_text(f"apps:\n{apps}  a{count}: {{path: x}}\n")
    found = config.load(tmp_path / "c.yaml")
    assert [app.name for app in catalog.order(found.apps)] == [
        f"a{n}" for n in range(count, -1, -1)
    ]
