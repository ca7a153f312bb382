"""Kill -9 at every step of writing the store, and a full disk: what was answered holds."""

import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgpack
import pytest

from bus.settings import BrokerSettings, save
from tests.support.broker import Broker
from tests.support.durable_client import Client, Dead
from tests.support.history import History
from tests.support.raw import OK, PUBLISH
from tests.support.steps import Forks, build

BUDGET = 55  # seconds; far more than a sweep takes on a machine that does nothing else


class Script:
    """What the client does at each life of the broker; stops where the broker dies."""

    def __init__(self, forks: Forks) -> None:
        self.forks = forks
        self.history = History()
        self.known = False  # the topic was answered OK

    def client(self) -> Client:
        broker = self.forks.broker
        return Client(broker.address, broker.keys["ada"], alive=lambda: not self.forks.dead())

    def check(self, client: Client) -> None:
        topics = client.asks("$SYS.topics", None)["topics"]
        assert topics or not self.known, "the topic is gone"
        if topics:
            self.history.check(client.reads_all())

    def live(self, client: Client) -> None:
        client.asks("$SYS.topic.put", {"topic": "orders", "subjects": ["app.order.>"]})
        self.known = True
        settings = {"topic": "orders", "consumer": "shop", "ack_wait": 0.2, "max_deliver": 0}
        client.asks("$SYS.consumer.put", settings)
        history = self.history
        for body in history.unheard:
            history.ok(body, client.stores(body, mid=body.decode()))
        for _ in range(3):
            body = history.publish(identified=True)
            history.ok(body, client.stores(body, mid=body.decode()))
        batch = [history.publish(identified=False) for _ in range(3)]
        last = client.stores(msgpack.packb(batch), n=3)
        for seq, body in enumerate(batch, last - 2):
            history.ok(body, seq)
        records = client.pulls(4)
        history.got(records)
        seqs = [seq for seq, _ in records[:2]]
        if seqs:
            history.asked.update(seqs)
            client.settles(*seqs)
            history.acked.update(seqs)
        for seq, _ in records[2:3]:
            client.settles(seq, act="nak")
        spare = {"topic": "spare", "subjects": ["app.spare"], "max_messages": 1}
        client.asks("$SYS.topic.put", spare)
        for _ in range(2):  # the second drops the first
            client.stores(b"x", s="app.spare")
        client.asks("$SYS.topic.remove", {"topic": "spare"})

    def run(self, step: int, *, torn: bool) -> str:
        """One life of the broker; how it ended."""
        if self.forks.start(step, torn=torn):
            try:
                with self.client() as client:
                    self.check(client)
                    self.live(client)
            except Dead:
                pass
        return self.forks.stop()


def sweep(library: Path, folder: Path, torn: bool) -> tuple[int, History]:
    """Kill at step 1, 2, 3 … until a life is over before its step comes."""
    broker = Broker(folder, ada="admin")
    forks = Forks(broker, library)
    try:
        script = Script(forks)
        step, end = 0, "signal 9"
        while end.startswith("signal 9"):
            step += 1
            end = script.run(step, torn=torn)
        assert end.startswith("exit 0"), (end, broker.log[-2000:])
        assert forks.start(0, torn=False)
        with script.client() as client:
            script.check(client)
            while records := client.pulls(256, wait=1000):
                script.history.got(records)
                client.settles(*[seq for seq, _ in records])
                script.history.acked.update(seq for seq, _ in records)
            script.history.complete(client.reads_all())
        assert forks.stop().startswith("exit 0")
    finally:
        forks.close()
    return step, script.history


@pytest.mark.timeout(4 * BUDGET)
def test_killed_at_every_step_the_broker_keeps_what_it_answered(tmp_path: Path) -> None:
    library = build(tmp_path)
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as other,
        ThreadPoolExecutor(2) as pool,
    ):
        whole = pool.submit(sweep, library, Path(one), False)
        torn = pool.submit(sweep, library, Path(other), True)
        for steps, history in (whole.result(), torn.result()):
            assert steps > 40  # making the store, storing, settling, closing
            assert len(history.stored) > 100
            assert len(history.acked) > 50
            print(steps, "steps", len(history.stored), "stored", len(history.acked), "acked")


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of `size` bytes in memory."""
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(folder)], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(client: Client, history: History, room: int) -> None:
    """Publish until the disk is full; no more than `room` messages fit."""
    filler = b"x" * 20_000
    for _ in range(room):
        body = history.publish(identified=True)
        client.send(PUBLISH, {"s": "app.order.new", "id": 1, "mid": body.decode()}, body + filler)
        code, fields, _ = client.hear()
        if code != OK:
            assert (fields["num"], fields["err"], fields["ref"]) == (507, "store_full", 1)
            history.sent.remove(body)  # refused: it must not be there
            return
        history.ok(body, fields["seq"])
    raise AssertionError("the disk never was full")


def numbers(records: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    return [(seq, body.rstrip(b"x")) for seq, body in records]


def test_a_full_disk_is_told_loses_nothing_and_is_over_when_there_is_room() -> None:
    history = History()
    with tempfile.TemporaryDirectory() as name, small_disk(Path(name) / "disk", 6 << 20) as disk:
        broker = Broker(Path(name), ada="admin")
        save(
            Path(name) / "broker.json",
            BrokerSettings(
                broker.address.endpoint, "broker.key", "access.json", topics_file="disk/topics.db"
            ),
        )
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(2 << 20))
        broker.start()
        try:
            with Client(broker.address, broker.keys["ada"]) as client:
                client.asks("$SYS.topic.put", {"topic": "orders", "subjects": ["app.order.>"]})
                client.asks("$SYS.consumer.put", {"topic": "orders", "consumer": "shop"})
                fill(client, history, 400)
                history.check(numbers(client.reads_all()))
                history.got(numbers(client.pulls(3)))  # what is there can still be had
                assert client.asks("$SYS.health", None)["ok"] is False
                ballast.unlink()
                client.settles(1, 2)
                history.acked.update((1, 2))
                fill(client, history, 400)
                assert client.alive()
            broker.kill()  # with a full disk
            broker.start()
            with Client(broker.address, broker.keys["ada"]) as client:
                history.check(numbers(client.reads_all()))
                history.got(numbers(client.pulls(256)))
                assert len(history.stored) > 100
        finally:
            broker.stop()
