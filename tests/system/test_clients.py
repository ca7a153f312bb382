"""Clients in four languages, from the specification alone, against the real broker, talking to each other."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bus import keystore, signals
from tests.support.broker import Broker, running_broker
from tests.support.raw import REPLY_DELIVERY, REQUEST, Raw

CLIENTS = Path(__file__).parents[2] / "examples/clients"
NAMES = ["c", "js", "perl", "python"]
PATIENCE = 60.0


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """How each client is started, built as its first lines say."""
    folder = tmp_path_factory.mktemp("clients")
    compiled = folder / "client"
    build(
        "cc",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-o",
        str(compiled),
        str(CLIENTS / "client.c"),
        "-lzmq",
        "-lmsgpackc",
    )
    script = folder / "client.mjs"  # beside its node_modules, where Node looks for them
    script.write_text((CLIENTS / "client.mjs").read_text())
    build(
        "npm",
        "install",
        "--prefix",
        str(folder),
        "--no-audit",
        "--no-fund",
        "zeromq@6",
        "@msgpack/msgpack@3",
    )
    return {
        "c": [str(compiled)],
        "js": ["node", str(script)],
        "perl": ["perl", str(CLIENTS / "client.pl")],
        "python": [sys.executable, "-P", str(CLIENTS / "client.py")],
    }


def build(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)


@contextmanager
def started(
    commands: dict[str, list[str]], broker: Broker, *names: str
) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Start these clients, each with the others as its peers."""
    with ExitStack() as stack:
        running = {}
        for name in names:
            peers = [peer for peer in names if peer != name]
            key_file = str(broker.folder / f"{name}.key")
            running[name] = stack.enter_context(
                subprocess.Popen(
                    [*commands[name], broker.address.endpoint, broker.address.key, key_file, name, *peers],
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                )
            )  # fmt: skip
            stack.callback(running[name].kill)
        yield running


def told(client: subprocess.Popen[str]) -> list[str]:
    """All lines of a client that has done what it should."""
    out, err = client.communicate(timeout=PATIENCE)
    assert (client.returncode, err) == (0, "")
    return out.splitlines()


def ask(operator: Raw, subject: str, value: object) -> None:
    operator.send(REQUEST, {"id": 1, "s": subject, "dl": 5000}, signals.pack(value))
    assert operator.hear()[0] == REPLY_DELIVERY


@pytest.mark.timeout(400)
def test_clients_in_four_languages_greet_ask_serve_store_and_consume(
    commands: dict[str, list[str]],
) -> None:
    roles = dict.fromkeys(NAMES, "app")
    with (
        running_broker(boss="operator", **roles) as broker,
        Raw(broker.address, broker.keys["boss"]) as boss,
    ):
        boss.hello(caps=["durable"])
        ask(boss, signals.TOPIC_PUT, signals.TopicConfig("orders", ["app.order.*"]))
        for name in NAMES:
            ask(boss, signals.CONSUMER_PUT, signals.ConsumerConfig("orders", name))
        with started(commands, broker, *NAMES) as running:
            lines = {name: told(client) for name, client in running.items()}
        stored = {name: int(lines[name][8].removeprefix("stored ")) for name in NAMES}
        assert sorted(stored.values()) == [1, 2, 3, 4]
        for name in NAMES:
            peers = [peer for peer in NAMES if peer != name]
            assert lines[name][:2] == [f"welcome {broker.keys[name].public}", "pong"]
            assert sorted(lines[name][2:5]) == [f"heard hello from {peer}" for peer in peers]
            assert lines[name][5:8] == [f"answer {peer} heard {name}" for peer in peers]
            orders = [f"order {seq}: order of {by}" for by, seq in stored.items()]
            assert sorted(lines[name][9:13]) == sorted(orders)
            assert lines[name][13:] == ["served 3"]
        # What was settled is done: nothing waits, nothing is in flight.
        boss.send(
            REQUEST,
            {"id": 2, "s": signals.CONSUMERS, "dl": 5000},
            signals.pack(signals.TopicName("orders")),
        )
        consumers = signals.unpack(boss.hear()[2], signals.Consumers).consumers
        assert {(c.config.consumer, c.floor, c.inflight) for c in consumers} == {
            (n, 4, 0) for n in NAMES
        }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.timeout(400)
def test_a_client_whose_key_is_not_allowed_says_so_and_ends(
    commands: dict[str, list[str]], name: str
) -> None:
    with running_broker() as broker:
        keystore.create(broker.folder / f"{name}.key")
        with started(commands, broker, name) as running:
            _, err = running[name].communicate(timeout=PATIENCE)
        assert running[name].returncode != 0
        assert "allow this key" in err


def test_every_client_says_in_its_first_lines_how_to_build_and_run_it() -> None:
    for file, words in {
        "client.c": ["apt-get install", "cc -O2", "./client ENDPOINT"],
        "client.mjs": ["npm install zeromq", "node client.mjs ENDPOINT"],
        "client.pl": ["apt-get install", "perl client.pl ENDPOINT"],
        "client.py": ["pip install", "python client.py ENDPOINT"],
    }.items():
        head = "\n".join((CLIENTS / file).read_text().splitlines()[:12])
        assert [word for word in words if word not in head] == []
