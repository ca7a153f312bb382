"""The mesh of several hosts, each with a home of its own: seen, measured and chosen from either side."""

import pytest

from tests.support.cluster import QUIET, cluster
from tests.support.instance import until

MESH = {
    "node-manager": {"path": "python:nodes.manager.service", "role": "manager", "ready": {"bus": True}},
    "alpha": {
        "path": "python:nodes.node", "role": "node", "default_args": ["--name", "alpha"],
        "ready": {"bus": True},
    },
    "beta": {
        "path": "python:nodes.node", "role": "node", "default_args": ["--name", "beta", "--link", "alpha"],
        "ready": {"bus": True},
    },
    "apptracker": {"path": "python:apps.tracker.server", "role": "tracker", "ready": {"bus": True}},
    "forward-server": {
        "path": "python:apps.forward.server", "default_args": ["--node", "beta"], "ready": {"bus": True},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """`alpha`, manager and tracker run on the first host, `beta` on the one that has joined."""
    with cluster(tmp_path_factory.mktemp("c")) as made:
        made.attic = made.join("attic")
        at = {"broker": {"endpoint": f"tcp://{made.endpoint}"}}
        for home, settings in ((made.first, at), (made.attic, {})):
            home.configure({**QUIET, **MESH}, **settings)
            home.run("config", "apply", "--yes")
        for app in ("node-manager", "alpha", "apptracker"):
            made.first.run("start", app)
        made.attic.run("start", "beta")
        until(lambda: [len(node["links"]) for node in made.first.ask("node", "ls")] == [1, 1], 30)
        yield made


def test_who_runs_here_is_said_by_each_home_of_its_own_nodes(pair):
    for home, own in ((pair.first, "alpha"), (pair.attic, "beta")):
        nodes = {node["name"]: node["here"] for node in home.ask("node", "ls")}
        assert nodes == {"alpha": own == "alpha", "beta": own == "beta"}


def test_from_either_side_the_other_is_measured_by_the_node_of_ones_own(pair):
    for home, own, other in ((pair.first, "alpha", "beta"), (pair.attic, "beta", "alpha")):
        keys = {node["name"]: node["key"] for node in home.ask("node", "ls")}
        answer = home.ask("node", "ping", other, "-n", "1")
        assert (answer["at"], answer["key"], answer["lost"]) == (keys[own], keys[other], 0)
        assert home.ask("node", "trace", other)["hops"][-1]["key"] == keys[other]
        assert home.ask("node", "show")["node"]["name"] == own


def test_people_of_a_host_that_joined_may_look_and_not_choose_ways(pair):
    assert pair.attic.ask("node", "route", "ls") == []
    denied = pair.attic.run("node", "route", "policy", "alpha", "beta", code=4)
    assert "say on the first host" in denied.stderr
    assert "node.speed" in pair.attic.run("node", "speed", "alpha", code=4).stderr
    laid = pair.first.ask("node", "route", "policy", "alpha", "beta", "--metric", "shortest")
    assert len(laid["path"]) == 2
    assert [wish["policy"]["metric"] for wish in pair.attic.ask("node", "route", "ls")] == [
        "shortest"
    ]


def test_what_an_app_of_either_host_offers_is_found_on_both(pair):
    pair.attic.run(
        "start", "forward-server", "--allow", "everybody", "--offer", "ssh", "22", "127.0.0.1:22"
    )
    for home in (pair.first, pair.attic):
        until(lambda home=home: "22" in home.run("find", "ssh", code=None).stdout.split(), 30)


def test_the_tracker_belongs_to_the_first_host(pair):
    refused = pair.attic.run("start", "apptracker", code=None)
    assert refused.returncode != 0
    assert "first host" in refused.stderr + pair.attic.run("why", "apptracker", code=None).stdout
