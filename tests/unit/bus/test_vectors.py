"""The golden vectors, the code and the document say the same."""

import ast
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from bus import access, services, signals, wire
from bus.errors import RemoteProtocolError
from bus.routing.sessions import LIMITS
from tests.support import body_types

ROOT = Path(__file__).parents[3]
VECTORS: dict[str, Any] = json.loads((ROOT / "tests/vectors/sb1.json").read_text())
DOCUMENT = (ROOT / "docs/protocol/sb1.md").read_text()
DIRECTIONS = {"client": wire.FROM_CLIENT, "broker": wire.FROM_BROKER}
ERROR_HEADS = [
    {"name": "ERROR", "direction": "broker", "code": 0x85, **error} for error in VECTORS["errors"]
]
GOODBYES = [
    {"name": "GOODBYE", "direction": "broker", "code": 0x83, **last} for last in VECTORS["goodbyes"]
]


def class_of(vector: dict[str, Any]) -> type[wire.Command]:
    """'SIGNAL-DELIVERY of whatever' is SignalDelivery."""
    wanted = vector["name"].split()[0].replace("-", "").lower()
    return next(c for c in DIRECTIONS[vector["direction"]] if c.__name__.lower() == wanted)


def name_of(vector: dict[str, Any]) -> str:
    return f"{vector['name']} {vector.get('num', '')} {vector.get('err', '')}".strip()


every_head = pytest.mark.parametrize(
    "vector", [*VECTORS["commands"], *ERROR_HEADS, *GOODBYES], ids=name_of
)


@every_head
def test_the_codec_encodes_a_vector_to_the_same_bytes(vector: dict[str, Any]) -> None:
    command = msgspec.convert(vector["fields"], class_of(vector))
    assert wire.encode(command).hex() == vector["head"]


@every_head
def test_the_codec_decodes_a_vector_to_the_same_values(vector: dict[str, Any]) -> None:
    command = wire.Decoder(DIRECTIONS[vector["direction"]]).decode(bytes.fromhex(vector["head"]))
    assert type(command) is class_of(vector)
    assert command == msgspec.convert(vector["fields"], type(command))


@every_head
def test_an_independent_codec_agrees_both_ways(vector: dict[str, Any]) -> None:
    head = bytes.fromhex(vector["head"])
    assert head[:4] == b"SB\x01" + bytes([vector["code"]])
    assert msgpack.unpackb(head[4:]) == vector["fields"]
    assert msgpack.packb(vector["fields"]) == head[4:]


def test_every_command_has_a_vector() -> None:
    assert {class_of(v) for v in VECTORS["commands"]} == {*wire.FROM_CLIENT, *wire.FROM_BROKER}
    assert all(class_of(v).code == v["code"] for v in VECTORS["commands"])


def test_a_batch_is_an_array_of_bodies() -> None:
    batch = VECTORS["batch"]
    bodies, body = [bytes.fromhex(b) for b in batch["bodies"]], bytes.fromhex(batch["body"])
    assert wire.join(bodies) == body == msgpack.packb(bodies)
    assert wire.split(body, batch["n"]) == bodies == msgpack.unpackb(body)


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda v: v["why"])
def test_a_wrong_head_is_refused_with_its_error(vector: dict[str, str]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        wire.Decoder(wire.FROM_CLIENT).decode(bytes.fromhex(vector["head"]))
    assert caught.value.err == vector["err"]


@pytest.mark.parametrize("vector", VECTORS["accepted"], ids=lambda v: v["why"])
def test_a_head_that_says_more_is_accepted(vector: dict[str, Any]) -> None:
    command = wire.Decoder(wire.FROM_CLIENT).decode(bytes.fromhex(vector["head"]))
    kind = class_of({**vector, "direction": "client"})
    assert command == msgspec.convert(vector["fields"], kind)


@pytest.mark.parametrize("vector", VECTORS["bodies"], ids=lambda v: f"{v['subject']} {v['part']}")
def test_the_bodies_of_system_subjects(vector: dict[str, Any]) -> None:
    kind, body = getattr(signals, vector["type"]), bytes.fromhex(vector["hex"])
    value = signals.unpack(body, kind)
    assert value == msgspec.convert(vector["fields"], kind)
    assert signals.pack(value) == body
    assert msgpack.unpackb(body) == vector["fields"]


def test_every_body_type_has_a_vector() -> None:
    structs = {
        name
        for name, value in vars(signals).items()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and name != "Struct"
    }
    used_inside = {
        "SessionInfo", "ClosedSession", "ServiceInfo", "Rules", "TokenInfo", "Enrolment",
    }  # fmt: skip
    assert {v["type"] for v in VECTORS["bodies"]} == structs - used_inside


def test_every_subject_of_the_broker_has_a_body_in_the_vectors() -> None:
    subjects = {v for v in vars(signals).values() if isinstance(v, str) and v.startswith("$SYS.")}
    assert {v["subject"] for v in VECTORS["bodies"] if v["subject"][0] == "$"} == subjects


def test_what_a_program_tells_of_its_services_has_a_vector_and_a_table_in_the_document() -> None:
    vector = VECTORS["discovery"]
    body = bytes.fromhex(vector["hex"])
    told = services.unpack(body, key="")
    assert services.pack(told) == body
    assert msgpack.unpackb(body) == msgspec.to_builtins(services.Services(told)) == vector["fields"]
    assert f"Example: `{vector['hex']}`" in DOCUMENT
    table = DOCUMENT.partition(f"| `{services.INFO}` | type |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (?:… )*(`.+?`) \|", table, re.MULTILINE)
    named = {field.encode_name for field in msgspec.structs.fields(services.Service)} - {"key"}
    named |= {field.encode_name for field in msgspec.structs.fields(services.Endpoint)}
    assert set(re.findall(r"\w+", " ".join(rows))) == {"services", *named}


def test_an_example_of_a_body_shows_every_key_and_the_document_names_them() -> None:
    rows = dict(
        zip(
            ((v["subject"], v["part"]) for v in VECTORS["bodies"]),
            re.findall(
                r"^\| `\S+` \| (?:request|answer|event) \| `(.*?)` \|", DOCUMENT, re.MULTILINE
            ),
            strict=True,
        )
    )
    for vector in VECTORS["bodies"]:
        told = set(re.findall(r"\w+", rows[vector["subject"], vector["part"]]))
        kind = getattr(signals, vector["type"])
        named = {field.encode_name for field in msgspec.structs.fields(kind)}
        if vector["type"] == "EnrolmentAnswer" and vector["subject"].endswith("reject"):
            named = {"key"}  # whoever rejects gives neither a name nor roles
        assert named <= told, vector["subject"]


def test_the_document_has_the_types_and_defaults_of_every_body() -> None:
    assert body_types.table(VECTORS["bodies"]) in DOCUMENT


def test_the_document_has_a_table_of_every_command_with_every_field_its_default_and_limit() -> None:
    for command in (*wire.FROM_CLIENT, *wire.FROM_BROKER):
        title = re.sub(r"(?<=[a-z])(?=Delivery)", "-", command.__name__).upper()
        tables = re.findall(
            rf"^\| {title} \| type \|.*\n\|[-|]+\n((?:\|.*\n)+)", DOCUMENT, re.MULTILINE
        )
        assert len(tables) == 1, title
        names = [
            n for row in tables[0].splitlines() for n in re.findall(r"`(\w+)`", row.split("|")[1])
        ]
        assert names == [f.encode_name for f in msgspec.structs.fields(command)], title


def test_the_registry_of_errors_is_what_the_broker_can_say() -> None:
    raised = set()
    parts = [*(ROOT / "bus/routing").glob("*.py"), *(ROOT / "bus/topics").glob("*.py")]
    for path in [ROOT / "bus/wire.py", *parts]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RemoteProtocolError":
                number, name = node.args[0], node.args[1]
                assert isinstance(number, ast.Constant)
                assert isinstance(name, ast.Constant)
                raised.add((number.value, name.value))
    assert raised == {(e["num"], e["err"]) for e in VECTORS["errors"]}


def test_every_number_of_goodbye_that_the_broker_says_is_listed_and_no_other() -> None:
    said = {400}  # an offence ends with the number of its error
    for path in (ROOT / "bus/routing").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            closes = isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "close"
            if not closes or len(node.args) < 3 or any(k.arg == "goodbye" for k in node.keywords):
                continue
            if isinstance(node.args[1], ast.Constant):
                said.add(node.args[1].value)
    assert said == {g["num"] for g in VECTORS["goodbyes"]}


# The document quotes vectors in blocks ```sb1 NAME, hex digits in lines, `body` before a body.


def quoted() -> list[tuple[str, str, str | None]]:
    """(name, head, body) of each block."""
    blocks = re.findall(r"^```sb1 (.+?)\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    found: list[tuple[str, str, str | None]] = []
    for name, text in blocks:
        head, has_body, body = re.sub(r"\s", "", text).partition("body")
        found.append((name, head, body if has_body else None))
    return found


def test_the_document_quotes_every_command_and_batch() -> None:
    wanted = {(v["name"], v["head"], v.get("body")) for v in VECTORS["commands"]}
    assert set(quoted()) == wanted


def test_the_document_lists_every_error_and_goodbye() -> None:
    rows = re.findall(
        r"^\| (\d{1,3}) \| `(\w+)` \| (yes|no|\*) \| (.*) \|$", DOCUMENT, re.MULTILINE
    )
    cut = {True: "yes", False: "no", None: "*"}
    assert rows == [(str(e["num"]), e["err"], cut[e["cut"]], e["when"]) for e in VECTORS["errors"]]
    last = re.findall(r"^\| (\d{1,3}) \| ([^`|]+) \| ([^|]+) \|$", DOCUMENT, re.MULTILINE)
    assert last == [(str(g["num"]), g["reason"], g["when"]) for g in VECTORS["goodbyes"]]


def test_the_document_quotes_every_body_of_a_system_subject() -> None:
    rows = re.findall(
        r"^\| `(\S+)` \| (request|answer|event) \| .* \| `([0-9a-f]+)` \|$", DOCUMENT, re.MULTILINE
    )
    assert rows == [(v["subject"], v["part"], v["hex"]) for v in VECTORS["bodies"]]


def test_the_document_lists_every_role_with_its_rights() -> None:
    def cell(patterns: Iterable[str]) -> str:
        return " ".join(f"`{p}`" for p in patterns) or "-"

    for name, has in access.ROLES.items():
        denied = {verb: getattr(has.deny, verb) for verb in access.VERBS}
        never = "; ".join(f"{verb} {cell(p)}" for verb, p in denied.items() if p) or "-"
        granted = [cell(getattr(has, verb)) for verb in access.VERBS]
        assert f"| `{name}` | {' | '.join([*granted, never])} |" in DOCUMENT


def test_the_document_and_the_vector_of_welcome_tell_the_limits_in_force() -> None:
    limits = msgspec.to_builtins(LIMITS)
    welcomes = [v for v in VECTORS["commands"] if v["name"].startswith("WELCOME")]
    assert welcomes
    for welcome in welcomes:
        assert welcome["fields"]["limits"] == limits
    for name, value in limits.items():
        assert f"| `{name}` | {value:,} |" in DOCUMENT
