"""Apps that run as somebody else than root, whose daemon starts them."""

import json
import os
import signal

import pytest

from tests.support.instance import instance, until


@pytest.fixture
def up(tmp_path):
    with instance(tmp_path / "h") as made:
        yield made


def test_an_app_runs_as_another_user_without_what_is_roots(up):
    tell = "id -un; id -gn; id -Gn; cat $VISCRIPT_HOME/keys/cli.key || echo no key; exec sleep 1000"
    who = {"path": "sh", "args": ["-c", tell], "user": "nobody", "cwd": "/"}
    up.configure({"who": who, "grouped": {**who, "group": "daemon"}})
    for app, group in (("who", "nogroup"), ("grouped", "daemon")):
        number = up.start(app)["id"]
        until(lambda number=number: "no key" in up.run("logs", str(number)).stdout)
        lines = up.run("logs", str(number)).stdout.splitlines()
        assert lines[:2] == ["nobody", group]
        assert "root" not in lines[2].split()


def test_another_users_app_reaches_its_key_and_its_folder_in_the_closed_home(up):
    tell = """
        pwd; stat -L -c '%U %a' . "$VISCRIPT_KEY_FILE"
        cat "$VISCRIPT_KEY_FILE"; echo; echo kept > "$VISCRIPT_STATE/note"; cat note
        ls "$VISCRIPT_HOME/state" && echo open || echo closed; exec sleep 1000"""
    up.configure({"who": {"path": "sh", "args": ["-c", tell], "user": "nobody"}})
    number = str(up.start("who")["id"])
    until(lambda: "closed" in up.run("logs", number).stdout)
    lines = up.run("logs", number).stdout.splitlines()
    folder = up.root / "state" / "apps" / "who"
    assert lines[:3] == [str(folder), "nobody 700", "nobody 600"]
    key = up.root / "keys" / "apps" / "who.key"
    assert lines[3] == key.read_text().strip()
    assert "kept" in lines
    assert (folder / "note").owner() == "nobody"
    assert (key.owner(), key.stat().st_mode & 0o777) == ("root", 0o600)


TELLS = """
use Socket;
sub tell_it {
    my ($what) = @_;
    (my $name = $ENV{NOTIFY_SOCKET}) =~ s/^@/\\0/;
    socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die;
    send($s, $what, 0, pack_sockaddr_un($name)) or die "$name: $!";
}
$SIG{USR1} = sub { tell_it("STATUS=still heard") };
tell_it("READY=1");
sleep 100 while 1;
"""


def test_another_users_app_tells_how_it_is_also_after_its_keeper_was_killed(up):
    app = {"path": "perl", "args": ["-e", TELLS], "user": "nobody", "ready": {"notify": True}}
    up.configure({"teller": app})
    launch = up.start("teller")
    assert launch["state"] == "running"
    state = up.root / "launches" / str(launch["id"]) / "state.json"
    keeper = json.loads(state.read_text())["keeper_pid"]
    os.kill(keeper, signal.SIGKILL)
    until(lambda: json.loads(state.read_text())["keeper_pid"] != keeper)
    os.kill(launch["pid"], signal.SIGUSR1)
    until(lambda: json.loads(state.read_text())["status"] == "still heard")


def test_its_probe_runs_as_the_same_user(up):
    probe = ["/bin/sh", "-c", "test $(id -un) = nobody && test $(id -Gn) = nogroup"]
    app = {"path": "sleep", "args": ["1000"], "user": "nobody", "ready": {"exec": probe}}
    up.configure({"asked": app})
    assert up.start("asked")["state"] == "running"
