"""What a key with every right may still not do to the daemon: send what is no request, or too much of one."""

import json
import math
import random

import msgspec
import pytest

from bus import keystore
from bus.caller import Caller
from bus.errors import BusError, Refused
from bus.identity import Address
from tests.support.instance import Instance, instance
from viscript.commands import job, kill, order, role, run, scale, sd, start, waiting
from viscript.commands.served import TABLE

LEFT_ALONE = {"viscript.down"}  # that one does what it is asked for


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with instance(tmp_path_factory.mktemp("hostile") / "h") as made:
        yield made


@pytest.fixture
def ask(made):
    found = json.loads((made.root / "daemon.json").read_text())
    pair = keystore.load(made.root / "keys" / "cli.key")
    with Caller(Address(found["endpoint"], found["broker_key"]), pair, name="t") as caller:

        def ask(subject: str, request: object) -> str:
            """ok, or the name of the error that comes back."""
            body = request if isinstance(request, bytes) else msgspec.msgpack.encode(request)
            try:
                caller.request(subject, body, to=found["key"], timeout=20.0)
            except Refused as error:
                return error.err
            except BusError as error:
                return type(error).__name__
            return "ok"

        yield ask


def unharmed(made: Instance) -> None:
    assert [x["state"] for x in made.ask("la") if x["app"] == "sleeper"] == ["running"]


def test_what_is_no_request_is_refused_and_nothing_else_happens(made, ask):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    deep = b"\x91" * 5000 + b"\xc0"
    for served in TABLE:
        if served.module.SUBJECT in LEFT_ALONE:
            continue
        bodies = [
            b"", deep, b"\xc1", b"\xdf\xff\xff\xff\xff", chance.randbytes(200),
            msgspec.msgpack.encode({"select": 5, "targets": {}, "what": [], "ids": "x", "entry": 1}),
            msgspec.msgpack.encode({"select": [None], "targets": [1.5], "what": "no", "ids": [[]]}),
        ]  # fmt: skip
        for body in bodies:
            assert ask(served.module.SUBJECT, body) != "no_handler"
    unharmed(made)


@pytest.mark.parametrize(
    ("subject", "request_", "answer"),
    [
        (sd.SUBJECT, sd.Request(select=[]), "usage"),
        (sd.SUBJECT, sd.Request(select=["x"] * 10_000), "usage"),
        (sd.SUBJECT, sd.Request(select=["(" * 4000]), "usage"),
        (sd.SUBJECT, sd.Request(select=["*a" * 2000 + "b"]), "not_found"),
        (sd.SUBJECT, sd.Request(select=["9" * 4000]), "not_found"),
        (sd.SUBJECT, sd.Request(select=["\x1b[31m"]), "not_found"),
        (sd.SUBJECT, sd.Request(select=["nobody"], batch=-5), "not_found"),
        (start.SUBJECT, start.Request(select=["sh"], args=["\0"]), "usage"),
        (start.SUBJECT, start.Request(select=["../../etc/passwd"]), "not_found"),
        (run.SUBJECT, run.Request(select=[], name="../x", argv=["true"], cwd="/"), "usage"),
        (run.SUBJECT, run.Request(select=[], name="x", argv=[], cwd="/"), "usage"),
        (run.SUBJECT, run.Request(select=[], name="x", argv=["a\0b"], cwd="/"), "usage"),
        (run.SUBJECT, run.Request(select=[], name="x", argv=["true"], cwd="/nowhere"), "config"),
        (kill.SUBJECT, kill.Request(select=["1"], signal=0), "usage"),
        (kill.SUBJECT, kill.Request(select=["1"], signal=-9), "usage"),
        (kill.SUBJECT, kill.Request(select=["1"], signal=4000), "usage"),
        (scale.SUBJECT, scale.Request(select=["sleeper"], count=-1), "usage"),
        (scale.SUBJECT, scale.Request(select=["sleeper"], count=10**6), "usage"),
        (scale.SUBJECT, scale.Request(select=["a", "b"], count=1), "usage"),
        (job.SUBJECT, job.Request("show", -1), "not_found"),
        (job.SUBJECT, job.Request("cancel", 10**15), "not_found"),
        (waiting.SUBJECT, waiting.Request(["1"], "ended", math.nan), "ok"),
        (waiting.SUBJECT, waiting.Request(["1"], "x" * 5000, 1.0), "usage"),
        (role.SUBJECT, role.Request("set", role.Entry("x" * 40, "view", "(")), "usage"),
        (role.SUBJECT, role.Request("set", role.Entry("no", "view")), "usage"),
        (role.SUBJECT, role.Request("remove", key="x" * 40), "not_found"),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_says_so(made, ask, subject, request_, answer):
    assert ask(subject, request_) == answer
    unharmed(made)


def test_one_key_cannot_fill_the_desk(made, ask):
    made.start("stubborn")
    outcomes = [
        ask(sd.SUBJECT, sd.Request(select=["stubborn"], request=str(number)))
        for number in range(300)
    ]
    assert outcomes[0] == "ok"
    assert outcomes[-1] in {"conflict", "not_found"}
    assert len(made.ask("job", "ls")) <= 210
    unharmed(made)


def test_a_reply_is_an_order_reply_whatever_is_asked_twice(made, ask):
    assert ask(sd.SUBJECT, sd.Request(select=["sleeper"], dry=True, request="r" * 10_000)) == "ok"
    assert order.MAX_REQUEST == 64
    unharmed(made)
