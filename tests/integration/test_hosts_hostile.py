"""A host that has been taken over: it speaks to the first host with its own key, and gets nothing more."""

import asyncio
import json

import pytest

from bus import keystore, sockets
from bus.client import connect
from bus.errors import BusError, NotAuthorised, Refused
from bus.identity import Address
from bus.signals import ACCESS_PUT, PING, SHUTDOWN, AccessEntry, Done, pack, unpack
from tests.support.cluster import cluster
from viscript.cluster import talk
from viscript.cluster.numbers import Block
from viscript.records import Status


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    """`beta` runs an app; `evil` has joined, and its daemon is ours."""
    with cluster(tmp_path_factory.mktemp("c")) as made:
        made.beta = made.join("beta")
        made.app = made.beta.start("citizen")
        made.evil = made.join("evil")
        made.evil.run("daemon", "stop", code=None)
        made.pair = keystore.load(made.evil.root / "keys" / "daemon.key")
        joined = json.loads((made.evil.root / "cluster.json").read_text())
        made.address = Address(joined["endpoint"], joined["broker_key"])
        made.registrar = joined["first"]
        yield made


def ask(made, subject: str, body: object, to: str | None = None) -> bytes:
    async def main() -> bytes:
        async with connect(made.address, made.pair, name="evil") as bus:
            return await bus.request(subject, pack(body), to=to or made.registrar, timeout=5)

    return asyncio.run(main())


def test_it_cannot_change_the_access_list(taken):
    with pytest.raises(BusError):
        ask(taken, ACCESS_PUT, AccessEntry(taken.pair.public, "evil", ["admin"]))


@pytest.mark.parametrize("role", ["admin", "operator", "observer", "manager", "host", ""])
def test_it_cannot_let_in_what_has_a_greater_role(taken, role):
    with pytest.raises(Refused, match="may be app and node"):
        ask(taken, talk.ADMIT, talk.App(sockets.new_keypair().public, "x", role))


def test_it_cannot_take_over_keys_that_are_others(taken):
    entries = taken.first.ask("bus", "keys", "list")
    for entry in entries:
        with pytest.raises(Refused):
            ask(taken, talk.ADMIT, talk.App(entry["key"], "x", "app"))
    assert taken.first.ask("bus", "keys", "list") == entries


def test_it_cannot_end_or_shut_out_the_apps_of_others(taken):
    with pytest.raises(Refused):
        ask(taken, talk.END, talk.App(taken.app["key"]))
    with pytest.raises(NotAuthorised):
        ask(taken, SHUTDOWN, Done(), to=taken.app["key"])
    ask(taken, talk.DISMISS, talk.App(taken.app["key"]))  # not its own: nothing happens
    assert taken.beta.ask("ping", str(taken.app["id"]))["bus"]["ok"] is True


def test_it_cannot_command_the_daemons(taken):
    for subject in ("viscript.list", "viscript.start", "viscript.down", "viscript.host.invite"):
        with pytest.raises(NotAuthorised):
            ask(taken, subject, {})


def test_it_cannot_answer_for_the_first_host(taken):
    async def main() -> None:
        async with connect(taken.address, taken.pair, name="evil") as bus:
            with pytest.raises(NotAuthorised):
                await bus.serve(talk.HELLO, lambda _: b"")

    asyncio.run(main())


def test_its_people_cannot_end_programs_past_the_daemons_whatever_their_role(taken):
    boss = taken.join("boss", "--role", "admin")
    pair = keystore.load(boss.root / "keys" / "cli.key")

    async def main() -> None:
        async with connect(taken.address, pair, name="boss") as bus:
            assert await bus.request(PING, pack(Done()), to=taken.app["key"], timeout=5)
            with pytest.raises(NotAuthorised):
                await bus.request(SHUTDOWN, pack(Done()), to=taken.app["key"], timeout=5)
            with pytest.raises(BusError):
                await bus.signal(taken.app["key"], SHUTDOWN)

    asyncio.run(main())
    assert taken.beta.ask("ping", str(taken.app["id"]))["bus"]["ok"] is True


def lie(number: int, key: str = "") -> Status:
    return Status(
        id=number, app="\x1b[2Jcitizen", state="failed", key=key, since=0.0, args=[], started=0.0,
        host="beta", reason="\x1b]0;owned\x07",
    )  # fmt: skip


def test_what_it_reports_is_shown_as_its_own_and_cannot_steer_a_terminal(taken):
    number = unpack(ask(taken, talk.NUMBERS, Done()), Block).first
    ask(taken, talk.REPORT, talk.Report([lie(number, taken.app["key"]), lie(number, "no key")]))
    assert "\x1b" not in taken.first.run("la", code=10).stdout
    listed = json.loads(taken.first.run("la", "--json", code=10).stdout)
    assert {(x["host"], x["state"]) for x in listed if x["id"] == number} == {("evil", "failed")}


def test_it_cannot_pass_launches_off_with_ids_that_are_not_its_own(taken):
    number = taken.app["id"]
    ask(taken, talk.REPORT, talk.Report([lie(number, taken.app["key"]), lie(0), lie(2**62)]))
    listed = json.loads(taken.first.run("la", "--json", code=10).stdout)
    assert [(x["host"], x["state"]) for x in listed if x["id"] == number] == [("beta", "running")]
    assert not [x for x in listed if x["id"] in {0, 2**62}]
    assert taken.first.ask("ping", str(number))["host"] == "beta"


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x80", b"\x93\x01\x02\x03", b"\x91" * 500])
def test_what_is_no_request_is_refused(taken, body):
    async def main() -> None:
        async with connect(taken.address, taken.pair, name="evil") as bus:
            for subject in (talk.HELLO, talk.REPORT, talk.ADMIT, talk.DISMISS, talk.END):
                with pytest.raises(Refused):
                    await bus.request(subject, body, to=taken.registrar, timeout=5)

    asyncio.run(main())
    assert "connected" in taken.first.run("host", "ls", code=10).stdout


def test_blocks_of_ids_are_never_handed_out_twice(taken):
    blocks = [unpack(ask(taken, talk.NUMBERS, Done()), Block) for _ in range(3)]
    assert len({block.first for block in blocks}) == 3
    assert taken.beta.start("sleeper")["id"] not in {
        n for block in blocks for n in range(block.first, block.last + 1)
    }
