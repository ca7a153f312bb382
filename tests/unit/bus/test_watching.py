"""What the broker tells of itself: figures that add up, problems that are named, metrics that are bounded."""

import re
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bus import metrics, signals, wire
from bus.routing.watching import MAX_LAG, Figures, Sources, Vitals, Watching
from bus.signals import TopicConfig, TopicInfo
from bus.vitals import Pulse, read_vitals
from tests.support.dialogue import Table, only


def watched(table: Table, sources: Sources | None = None, vitals: Vitals | None = None) -> Watching:
    """Let the table's broker tell of itself."""
    made = Watching(
        table.router.sessions, sources or Sources(), vitals=lambda: vitals or Vitals(),
        render=lambda figures: f"{figures.varz.sessions} sessions",
    )  # fmt: skip
    table.router.add(made)
    return made


def topic(name: str, size: int = 10) -> TopicInfo:
    return TopicInfo(TopicConfig(name, [f"topic.{name}"]), 1, 5, 5, size, 2)


def samples(figures: Figures) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("viscript_bus_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.text(figures))
        for sample in family.samples
    }


def test_the_figures_of_all_sessions_are_added_up() -> None:
    table = Table(ada="app", ben="app")
    watching = watched(table, vitals=Vitals(start=7.0, rss=4096, refused={"key_unknown": 2}))
    ada, ben = table.join("ada"), table.join("ben")
    before = watching.varz()
    only(ada.say(wire.Subscribe(1, 1, "topic.>")), wire.Ok)
    only(ben.say(wire.Subscribe(1, 1, "topic.x")), wire.Ok)
    only(ben.say(wire.Serve(2, "app.ben")), wire.Ok)
    only(ada.say(wire.Publish("mesh.x", id=3)), wire.Error)
    varz = watching.varz()
    assert (varz.sessions, varz.keys, varz.subscriptions, varz.services) == (2, 2, 2, 1)
    assert varz.messages_in - before.messages_in == 4
    assert varz.bytes_in > before.bytes_in
    assert varz.refused == {"key_unknown": 2, "denied": 1}
    assert (varz.start, varz.rss, varz.topics) == (7.0, 4096, 0)


def test_what_a_session_had_counted_stays_counted_when_it_has_ended() -> None:
    table = Table(ada="app")
    watching = watched(table)
    ada = table.join("ada")
    ada.say(wire.Ping(1))
    before = watching.varz()
    ada.say(wire.Bye())
    after = watching.varz()
    assert (before.sessions, after.sessions) == (1, 0)
    assert after.messages_in == before.messages_in + 1
    assert after.bytes_in > before.bytes_in
    assert watching.figures().closed == {0: 1}


def test_a_request_that_waits_is_in_flight_until_it_is_answered() -> None:
    table = Table(ada="app", ben="app")
    watching = watched(table)
    ada, ben = table.join("ada"), table.join("ben")
    ben.say(wire.Serve(1, "app.ben"))
    ada.say(wire.Request(1, "app.ben", 1000))
    assert watching.varz().inflight == 1
    handle = only(ben.hears(), wire.RequestDelivery).r
    ben.say(wire.Reply(handle))
    assert watching.varz().inflight == 0


def test_bytes_that_wait_for_a_slow_reader_are_told() -> None:
    table = Table(ada="app", ben="app")
    watching = watched(table)
    ada, ben = table.join("ada"), table.join("ben")
    ben.say(wire.Subscribe(1, 1, "topic.x"))
    ben.reading = False
    ada.say(wire.Publish("topic.x"), bytes(5000))
    assert 5000 < watching.varz().queued_bytes < 5200


def test_the_broker_answers_on_its_subjects() -> None:
    table = Table(boss="operator")
    closed = signals.ClosedSession("k", "n", 1, 1.0, 2.0, 0, "done")
    watched(table, Sources(closed=lambda: [closed]))
    boss = table.join("boss")
    assert boss.asks(signals.VARZ)["sessions"] == 1
    assert boss.asks(signals.HEALTH) == {"ok": True, "problems": []}
    assert boss.asks(signals.METRICS) == {"text": "1 sessions"}
    [told] = boss.asks(signals.CLOSED)["sessions"]
    assert told == msgspec.to_builtins(closed)


def test_who_has_left_is_told_in_pages_the_newest_first() -> None:
    table = Table(boss="operator")
    ends = [(9, 30.0), (2, 20.0), (7, 20.0), (1, 10.25)]
    gone = [signals.ClosedSession("k", "n", n, 1.0, until, 0, "done") for n, until in ends]
    watched(table, Sources(closed=lambda: gone))
    boss = table.join("boss")
    first = boss.asks(signals.CLOSED, signals.PageQuery(limit=3))
    rest = boss.asks(signals.CLOSED, signals.PageQuery(first["next"], 3))
    assert [session["session"] for session in first["sessions"]] == [9, 7, 2]
    assert [session["session"] for session in rest["sessions"]] == [1]
    assert "next" not in rest


@pytest.mark.parametrize("subject", [signals.VARZ, signals.HEALTH, signals.METRICS, signals.CLOSED])
def test_an_app_may_not_ask(subject: str) -> None:
    table = Table(ada="app")
    watched(table)
    error = table.join("ada").asks(subject)
    assert (error.num, error.err) == (403, "denied")


@pytest.mark.parametrize(
    ("vitals", "store", "problem"),
    [(Vitals(lag=MAX_LAG + 1), "", "one turn of the broker's loop took 2.0 s lately"),
     (Vitals(fds=95, max_fds=100), "", "95 of 100 open files are in use; raise the limit (ulimit -n)"),
     (Vitals(problems=("the access list was not reloaded: x",)), "", "the access list was not reloaded: x"),
     (Vitals(), "disk full", "the store of durable topics: disk full")],
)  # fmt: skip
def test_what_is_wrong_is_named(vitals: Vitals, store: str, problem: str) -> None:
    health = watched(Table(), Sources(store_problem=lambda: store), vitals).health()
    assert (health.ok, health.problems) == (False, [problem])


@pytest.mark.parametrize(
    "vitals", [Vitals(), Vitals(lag=MAX_LAG, fds=90, max_fds=100), Vitals(fds=10**9, max_fds=0)]
)
def test_nothing_wrong_is_well(vitals: Vitals) -> None:
    assert watched(Table(), vitals=vitals).health() == signals.Health(ok=True)


def test_metrics_tell_each_topic_and_their_sum() -> None:
    sources = Sources(topics=lambda: [topic("jobs", 100), topic("log", 50)])
    found = samples(watched(Table(), sources).figures())
    assert found["topics",] == 2
    assert found["stored_bytes",] == 150
    assert found["topic_bytes", "jobs"] == 100
    assert found["topic_last_sequence", "log"] == 5
    assert found["topic_consumers", "log"] == 2
    assert found["healthy",] == 1


def test_metrics_are_bounded_however_many_topics_and_reasons_there_are() -> None:
    sources = Sources(topics=lambda: [topic(f"t{n:05}", 1) for n in range(5000)])
    vitals = Vitals(refused={f"reason{n}": n + 1 for n in range(1000)}, max_fds=10)
    figures = watched(Table(), sources, vitals).figures()
    found = samples(figures)
    assert found["topics",] == found["stored_bytes",] == 5000
    assert sum(name[0] == "topic_bytes" for name in found) == metrics.MAX_TOPICS
    assert sum(name[0] == "refused_total" for name in found) <= 64
    assert len(metrics.text(figures)) < 1 << 18


def test_metrics_of_strange_names_are_still_read() -> None:
    name = 'a"b\\c\nd{}e'
    found = samples(watched(Table(), Sources(topics=lambda: [topic(name)])).figures())
    assert found["topic_bytes", name] == 10


def test_every_metric_has_a_name_of_its_own_and_a_help_text() -> None:
    sources = Sources(topics=lambda: [topic("jobs")])
    text = metrics.text(watched(Table(), sources).figures())
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)) > 20
    assert all(family.documentation.endswith(".") for family in families)


def test_the_document_lists_every_metric_and_no_other() -> None:
    text = metrics.text(watched(Table(), Sources(topics=lambda: [topic("jobs")])).figures())
    exported = set(re.findall(r"^# TYPE viscript_bus_(\w+) ", text, re.MULTILINE))
    document = (Path(__file__).parents[3] / "docs" / "monitoring.md").read_text()
    section = document.partition("## Metrics")[2].partition("Scraping:")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == exported
    used = set(re.findall(r"viscript_bus_(\w+)", document.partition("Scraping:")[2]))
    assert used < exported


def test_the_longest_turn_shows_for_a_window_after_its_own() -> None:
    pulse = Pulse()
    pulse.took(0.5)
    pulse.took(0.1)
    assert pulse.longest == 0.5
    pulse.tick()
    pulse.took(0.2)
    assert pulse.longest == 0.5
    pulse.tick()
    assert pulse.longest == 0.2
    pulse.tick()
    assert pulse.longest == 0.0


def test_the_vitals_of_a_process_are_read() -> None:
    vitals = read_vitals(3.0, Pulse(), {"x": 1}, ("p",))
    assert (vitals.start, vitals.refused, vitals.problems) == (3.0, {"x": 1}, ("p",))
    assert vitals.rss > 1 << 20
    assert vitals.fds >= 3
    assert vitals.cpu_seconds > 0
