"""The table of top: order, keys, and that nothing is wider or longer than the screen."""

from hypothesis import given
from hypothesis import strategies as st

from viscript.commands.ru import row
from viscript.records import Status, Usage
from viscript.topview import Frame, Host, View, cut, duration, lines, ordered, pressed


def status(number: int, app: str, state: str = "running", **more) -> Status:
    given = {"key": "k", "since": 90.0, "args": [], "started": 90.0} | more
    return Status(id=number, app=app, state=state, **given)


def used(number: int, cpu: float, rss: int = 1 << 20) -> Usage:
    return Usage(
        id=number, app="", pid=number, processes=1, cpu_percent=cpu, cpu_seconds=1.0, rss=rss,
        threads=number, open_files=3, bus_in_rate=float(rss), bus_out_rate=0.0,
    )  # fmt: skip


HOST = Host(
    host="pi", at=100.0, since=10.0, cpus=2, load=(0.5, 0.25, 0.125), memory=4 << 30,
    memory_free=3 << 30, daemon=used(-1, 0.5),
)  # fmt: skip
FRAME = Frame(
    HOST,
    [status(1, "web"), status(2, "db"), status(3, "job", "backoff", next_try=104.0)],
    [used(1, 2.0), used(2, 40.0)],
)


def ids(view: View) -> list[int]:
    return [row.id for _, row, _ in ordered([FRAME], view)]


def test_the_most_stands_first_and_what_does_not_run_last():
    assert ids(View()) == [2, 1, 3]
    assert ids(View(sort="app")) == [2, 3, 1]
    assert ids(View(sort="id")) == [1, 2, 3]
    assert ids(View(backwards=True)) == [3, 1, 2]


def test_keys_sort_scroll_change_the_pace_and_end():
    assert pressed(View(), "m").sort == "mem"
    assert pressed(View(), "r").backwards
    assert pressed(View(top=1), "\x1b[A").top == 0
    assert pressed(View(), "+").interval == 1.0
    assert pressed(View(), "q").over
    assert pressed(View(), "h").help
    assert pressed(View(), "Z") == View()


def test_the_screen_shows_host_states_and_rows():
    shown = [text for text, _ in lines([FRAME], View(), 100, 24)]
    assert shown[0] == "pi  up 90 s  load 0.50 0.25 0.12 on 2 CPUs  memory 1.0 GiB of 4.0 GiB"
    assert shown[1] == "3 launches: 1 backoff, 2 running  |  daemon 0.5 % 1.0 MiB"
    assert shown[3].split()[:4] == ["ID", "APP", "STATE", "CPU"]
    assert shown[4].split()[:4] == ["2", "db", "running", "40.0"]
    assert shown[6].endswith("again in 4 s")


def test_a_notice_stands_in_the_place_of_the_hints_and_help_in_that_of_the_table():
    assert lines([FRAME], View(), 100, 24, "away")[2] == ("away", "bad")
    assert any("sort by CPU" in text for text, _ in lines([FRAME], View(help=True), 100, 24))


@given(
    st.integers(1, 200), st.integers(1, 50), st.integers(0, 50),
    st.sampled_from(["cpu", "mem", "threads", "files", "bus", "id", "app"]), st.text(max_size=40),
)  # fmt: skip
def test_whatever_the_screen_and_the_names_nothing_is_wider_longer_or_steers_it(
    width, height, top, sort, text
):
    frame = Frame(HOST, [*FRAME.launches, status(9, text, reason=text)], FRAME.usage)
    shown = lines([frame], View(sort=sort, top=top), width, height, text[:0])
    assert len(shown) <= height
    for line, _ in shown:
        assert len(line) <= width * 3  # combining characters take no cells
        assert not set(line) & {"\x1b", "\n", "\r", "\x00", "\x9b"}


def test_wide_characters_count_two_cells():
    assert cut("ab漢字cd", 4) == "ab漢"


def test_durations_are_said_as_people_do():
    assert [duration(s) for s in (-1, 5, 119, 120, 7199, 7200, 200000)] == [
        "0 s", "5 s", "119 s", "2 min", "120 min", "2 h", "2 d",
    ]  # fmt: skip


def test_several_hosts_stand_in_one_table_with_their_names():
    other = Frame(
        Host(
            host="attic", at=100.0, since=0.0, cpus=1, load=(0.0, 0.0, 0.0), memory=1, memory_free=0
        ),
        [status(7, "web")],
        [used(7, 10.0)],
    )
    shown = [text for text, _ in lines([FRAME, other], View(), 120, 24)]
    rows = [line.split()[1] for line in shown[6:]]
    assert rows == ["pi:db", "attic:web", "pi:web", "pi:job"]


def test_instances_are_called_as_selectors_name_them():
    frame = Frame(HOST, [status(1, "web"), status(2, "web", instance=1), status(3, "db")], [])
    shown = [text.split()[1] for text, _ in lines([frame], View(sort="id"), 100, 24)[4:]]
    assert shown == ["web:0", "web:1", "db"]
    one = used(2, 1.0)
    one.app, one.instance = "web", 1
    assert row(one, one_of_several=True)[1] == "web:1"
