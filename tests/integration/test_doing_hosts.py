"""Orders for other hosts of a cluster: a job there, which is found again; one by one over all of them."""

import json

import pytest

from tests.support.cluster import QUIET, cluster

STUBBORN = {
    **QUIET,
    "deaf": {"path": "sh", "args": ["-c", "trap '' TERM; while :; do sleep 0.1; done"]},
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("hosts")) as made:
        made.beta = made.join("beta")
        made.beta.configure(STUBBORN)
        yield made


def test_what_is_not_known_in_time_names_the_host_whose_job_tells(pair):
    number = str(json.loads(pair.first.run("start", "--json", "beta:deaf").stdout)["id"])
    done = pair.first.run("sd", number, "--timeout", "0.3", code=7)
    assert "--host beta" in done.stderr
    job = done.stderr.partition("unknown, job ")[2].partition(":")[0]
    assert f"deaf ({number})" in pair.first.run("job", "ls", "--host", "beta").stdout
    pair.first.run("job", job, "--host", "beta", "--wait", "40")
    assert "no host is called 'gamma'" in pair.first.run("job", "ls", "-H", "gamma", code=5).stderr


def test_a_batch_is_one_by_one_over_all_hosts_and_ends_with_the_first_problem(pair):
    here = pair.first.start("sleeper")["id"]
    there = json.loads(pair.first.run("start", "--json", "beta:sleeper").stdout)["id"]
    runs = {x["id"]: x["generation"] for x in pair.first.ask("la") if x["ended"] is None}
    again = pair.first.ask("restart", "--batch", "1", "--yes", "sleep*")
    assert {x["id"]: x["generation"] for x in again} == {
        here: runs[here] + 1,
        there: runs[there] + 1,
    }
    pair.first.configure({**QUIET, "sleeper": {"path": "nothing"}})
    done = pair.first.run("restart", "--batch", "1", "--yes", "sleep*", code=None)
    assert done.returncode in {1, 8}
    assert "not begun on beta" in done.stderr
    pair.first.configure(QUIET)
    pair.first.run("sd", "--yes", "sleep*")


def test_waiting_is_for_all_hosts_too(pair):
    number = str(json.loads(pair.first.run("start", "--json", "beta:sleeper").stdout)["id"])
    assert f"(ID {number}) is running" in pair.first.run("wait", number).stdout
    pair.first.run("wait", "beta:sleeper", "--for", "ended", "--timeout", "0.2", code=7)
    pair.first.run("sd", number)
    pair.first.run("wait", number, "--for", "ended")
    assert "does not become ready" in pair.first.run("wait", number, code=3).stderr


def test_an_app_of_another_host_is_scaled_there(pair):
    assert "runs 2 times" in pair.first.run("scale", "beta:sleeper", "2").stdout
    live = [x for x in pair.beta.ask("la") if x["app"] == "sleeper" and x["pid"]]
    assert {x["host"] for x in live} == {"beta"}
    assert len(live) == 2
    pair.first.run("sd", "--yes", "beta:*")
