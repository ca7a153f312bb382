"""Who may what, asked over a real bus by keys of all kinds: deny by default, all of it audited."""

import json
import secrets

import msgspec
import pytest

from bus import keystore
from bus.caller import Caller
from bus.errors import BusError, NotAuthorised, Refused
from bus.identity import Address, to_hex
from tests.support.instance import APPS, instance
from viscript.commands import find, history, job, plan, role, sd, start, why
from viscript.commands import list as listing
from viscript.commands.served import TABLE
from viscript.errors import ViscriptError
from viscript.protocol import accept


class Other:
    """Somebody with a key of their own, on the bus of an instance."""

    def __init__(self, made, folder, *, roles: str = "") -> None:
        self.made = made
        self.pair = keystore.load_or_create(folder / f"{secrets.token_hex(4)}.key")
        self.key = self.pair.public
        found = json.loads((made.root / "daemon.json").read_text())
        self._address, self._daemon = Address(found["endpoint"], found["broker_key"]), found["key"]
        if roles:
            made.run("bus", "keys", "allow", to_hex(self.key), "--role", roles, "--name", "other")

    def ask(self, subject: str, request: object, kind: type = dict):
        body = request if isinstance(request, bytes) else msgspec.msgpack.encode(request)
        with Caller(self._address, self.pair, name="other", timeout=5.0) as caller:
            try:
                return msgspec.msgpack.decode(
                    caller.request(subject, body, to=self._daemon, timeout=10.0), type=kind
                )
            except Refused as error:
                raise accept(error.err, str(error)) from None

    def refused(self, subject: str, request: object) -> str:
        """The name of the error that it gets."""
        with pytest.raises(ViscriptError) as raised:
            self.ask(subject, request)
        return raised.value.name

    def allow(self, role: str, *more: str) -> None:
        self.made.run("role", "set", self.key, role, "--name", "other", *more)

    def sees(self) -> list[str]:
        found = self.ask(listing.SUBJECT, listing.Request(), listing.Reply)
        return [status.app for status in found.launches]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with instance(tmp_path_factory.mktemp("roles") / "h") as made:
        made.start("chatty")
        yield made


@pytest.fixture
def operator(made, tmp_path):
    """The broker lets it do nearly anything; the daemon knows nothing of it."""
    return Other(made, tmp_path, roles="operator")


def test_files_of_the_host_are_no_business_of_who_may_only_configure(made, operator):
    """What is wrong with a file tells of what is in it."""
    operator.allow("configure")
    try:
        assert operator.ask(plan.SUBJECT, plan.Request(), plan.Reply).apps == ()
        assert operator.refused(plan.SUBJECT, plan.Request("/etc/passwd")) == "denied"
    finally:
        made.run("role", "rm", operator.key)


def test_a_key_of_which_nothing_is_known_gets_nothing_whatever_it_asks_for(made, operator):
    for served in TABLE:
        for body in (b"", b"\xc1", b"\x80", msgspec.msgpack.encode({"targets": ["1"]})):
            assert operator.refused(served.module.SUBJECT, body) == "denied", served.module
    assert len(made.ask("la")) == 2


def test_what_is_not_in_the_table_is_not_answered(made, operator):
    operator.allow("admin")
    for subject in ("viscript.nosuch", "viscript.handle", "viscript.__init__", "signal.shutdown"):
        with pytest.raises((ViscriptError, BusError)) as raised:
            operator.ask(subject, {})
        assert "no_handler" in str(raised.value) or "does not answer" in str(raised.value)


def test_roles_are_steps(operator):
    operator.allow("view")
    assert operator.sees() == ["sleeper", "chatty"]
    assert operator.refused(sd.SUBJECT, sd.Request(select=["1"])) == "denied"
    assert operator.refused(start.SUBJECT, start.Request(select=["sleeper"])) == "denied"
    assert operator.refused("viscript.down", {}) == "denied"
    operator.allow("operate")
    assert operator.refused(role.SUBJECT, role.Request("list")) == "denied"
    assert operator.refused("viscript.down", {}) == "denied"
    operator.allow("configure")
    assert operator.refused(role.SUBJECT, role.Request("list")) == "denied"
    operator.allow("admin")
    assert operator.ask(role.SUBJECT, role.Request("list"), role.Reply).roles


def test_a_role_on_a_selector_ends_there(made, operator):
    operator.allow("operate", "--on", "sleep*")
    assert operator.sees() == ["sleeper"]
    chatty = next(x["id"] for x in made.ask("la") if x["app"] == "chatty")
    for words in (
        [str(chatty)],
        ["chatty"],
        ["h:chatty"],
        ["chat*"],
        ["state=running", "and", "c*"],
    ):
        # It cannot be told from what is not there.
        assert operator.refused(sd.SUBJECT, sd.Request(select=words)) == "not_found", words
    assert operator.refused(find.SUBJECT, find.Request(["chatty"])) in {"not_found", "denied"}
    assert operator.refused(start.SUBJECT, start.Request(select=["sh"])) == "denied"
    reply = operator.ask(sd.SUBJECT, sd.Request(select=["*"], dry=True), sd.order.Reply)
    assert [status.app for status in reply.matched] == ["sleeper"]
    assert operator.refused("viscript.down", {}) == "denied"


def test_a_role_on_a_group_sees_what_happened_to_it_and_nothing_else(made, operator):
    grouped = {"path": "sleep", "args": [1000], "groups": ["front"]}
    made.configure(APPS | {"web": grouped})
    number = made.start("web")["id"]
    operator.allow("view", "--on", "@front")
    request = history.Request([], 100)
    assert {x.app for x in operator.ask(history.SUBJECT, request, history.Reply).events} == {"web"}
    named = made.ask("history", "@front")
    assert {x["id"] for x in named} == {number}
    made.run("sd", str(number))


def test_what_would_go_down_with_it_must_be_allowed_too(made, operator):
    made.configure(APPS | {"upon": {"path": "sleep", "args": [1000], "after": ["sleeper"]}})
    number = made.start("upon")["id"]
    operator.allow("operate", "--on", "sleeper")
    assert operator.refused(sd.SUBJECT, sd.Request(select=["sleeper"])) == "denied"
    assert {x["state"] for x in made.ask("la") if not x["ended"]} == {"running"}
    made.run("sd", str(number))


def test_why_tells_nothing_of_apps_that_are_not_to_be_seen(made, operator):
    operator.allow("view", "--on", "sleeper")
    for words in (["chatty"], ["missing"], ["sleeper", "missing"], ["miss*"]):
        assert operator.refused(why.SUBJECT, why.Request(words)) == "not_found"
    found = operator.ask(why.SUBJECT, why.Request(["*"]), why.Reply)
    assert {x.app for x in found.explained} == {"sleeper"}


def test_seeing_is_not_touching(made, operator):
    operator.allow("view")
    operator.allow("operate", "--on", "sleeper")
    assert {"sleeper", "chatty"} <= set(operator.sees())
    assert operator.refused(sd.SUBJECT, sd.Request(select=["*"], several=True)) == "denied"
    assert {x["state"] for x in made.ask("la") if not x["ended"]} == {"running"}


def test_others_jobs_are_not_there_for_who_may_not_see_what_they_are_about(made, operator):
    begun = json.loads(
        made.run("kill", "-s", "CONT", "--no-wait", "--json", "chatty", code=None).stdout
    )
    number = begun["job"]
    operator.allow("operate", "--on", "sleeper")
    assert operator.refused(job.SUBJECT, job.Request("show", number)) == "not_found"
    assert operator.refused(job.SUBJECT, job.Request("cancel", number)) == "not_found"
    assert operator.ask(job.SUBJECT, job.Request("list"), job.Reply).jobs == []


def test_a_key_gets_onto_the_bus_by_its_role_and_off_with_it(made, tmp_path):
    stranger = Other(made, tmp_path)
    with pytest.raises(NotAuthorised):
        stranger.sees()
    stranger.allow("view")
    assert {"sleeper", "chatty"} <= set(stranger.sees())
    with pytest.raises((BusError, ViscriptError)):
        stranger.ask("$SYS.sessions", {})
    made.run("role", "rm", stranger.key)
    with pytest.raises(NotAuthorised):
        stranger.sees()
    assert "no such role" in made.run("role", "rm", stranger.key, code=5).stderr


def test_a_roles_file_that_cannot_be_used_allows_nobody_but_the_home(made, operator):
    operator.allow("admin")
    file = made.root / "roles.yaml"
    good = file.read_text()
    try:
        for bad in ("keys: [", "keys: [{key: x, role: admin}]", good + "more: 1\n", "[]"):
            file.write_text(bad)
            assert operator.refused(listing.SUBJECT, listing.Request()) == "denied"
            assert made.ask("la")
            assert str(file) in made.run("role", "ls", code=8).stderr
        file.write_text(good)
        file.chmod(0o666)
        assert operator.refused(listing.SUBJECT, listing.Request()) == "denied"
        assert "chmod 600" in made.run("role", "ls", code=4).stderr
    finally:
        file.write_text(good)
        file.chmod(0o600)
    assert operator.sees()


def test_a_key_that_begins_with_a_dash_is_no_option(made):
    for key in ("-h" + "k" * 38, "--home" + "k" * 34):
        made.run("role", "set", key, "view", "--name", "dash")
        assert key in {x["key"] for x in made.ask("role", "ls")}
        made.run("role", "rm", key)
        made.run("bus", "keys", "allow", key, "--role", "observer")
        made.run("bus", "keys", "forbid", key)


@pytest.mark.parametrize(
    "arguments",
    [
        ["short", "view"],
        ["k" * 40, "god"],
        ["k" * 40, "view", "--on", "state=running"],
        ["k" * 40, "view", "--on", "17"],
        ["k" * 40, "view", "--on", "("],
        ["k" * 40, "view", "--name", "\x1b[31m"],
    ],
)
def test_a_role_that_cannot_be_meant_is_code_2(made, arguments):
    made.run("role", "set", *arguments, code=2)


def test_every_command_is_in_the_audit_log_and_no_secret_of_it(made, operator):
    operator.refused(sd.SUBJECT, sd.Request(select=["1"], request="do not keep this"))
    operator.allow("operate")
    operator.ask(sd.SUBJECT, sd.Request(select=["1"], dry=True), sd.order.Reply)
    text = made.run("audit", "--json", "-n", "1000").stdout
    lines = [json.loads(line) for line in text.splitlines()]
    mine = [line for line in lines if line["key"] == operator.key]
    assert [(x["command"], x.get("result", "ok")) for x in mine] == [
        ("viscript.stop", "denied"), ("viscript.stop", "ok"),
    ]  # fmt: skip
    assert mine[1]["asked"]["select"] == ["1"]
    by_us = [x for x in lines if x["command"] == "viscript.role" and x["name"] == "cli"]
    assert by_us[-1]["asked"]["entry"]["key"] == operator.key
    assert "do not keep this" not in text
    file = made.root / "state" / "audit.jsonl"
    assert file.stat().st_mode & 0o077 == 0
    assert "denied" in made.run("audit", "--denied").stdout
