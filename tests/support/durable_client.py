"""A client of durable topics by hand, that notices when its broker has died."""

from collections.abc import Callable
from typing import Any

import msgpack

from bus import Address, KeyPair
from tests.support.raw import ERROR, OK, PUBLISH, REPLY_DELIVERY, REQUEST, Raw

PULL, SETTLE, READ, RECORD = 0x20, 0x21, 0x22, 0x92
PATIENCE = 20.0
GLANCE = 0.02  # seconds between looks at the broker while nothing is heard


class Dead(Exception):
    """The broker has died before it answered."""


class Refused(Exception):
    """The broker answered with an error; `args` are its number and name."""


class Client(Raw):
    """A participant that stores, pulls and settles in the topic `orders` for the consumer `shop`."""

    def __init__(
        self, address: Address, pair: KeyPair, alive: Callable[[], bool] = lambda: True
    ) -> None:
        super().__init__(address, pair)
        self._alive = alive
        self.hello(caps=["durable"])

    def hear(self, patience: float = PATIENCE) -> tuple[int, dict[str, Any], bytes]:
        for _ in range(int(patience / GLANCE)):
            if self.socket.poll(int(GLANCE * 1000)):
                return super().hear()
            if not self._alive():
                if self.socket.poll(int(GLANCE * 1000)):
                    return super().hear()
                raise Dead
        raise AssertionError("nothing was heard")

    def answer(self, code: int) -> tuple[dict[str, Any], bytes]:
        """Give fields and body of the next message, which is of this code."""
        heard, fields, body = self.hear()
        if heard == ERROR:
            raise Refused(fields["num"], fields["err"])
        assert heard == code, (hex(heard), fields)
        return fields, body

    def asks(self, subject: str, value: Any) -> Any:
        self.send(REQUEST, {"id": 9, "s": subject, "dl": 5000}, msgpack.packb(value))
        return msgpack.unpackb(self.answer(REPLY_DELIVERY)[1])

    def stores(self, body: bytes, s: str = "app.order.new", **fields: Any) -> int:
        self.send(PUBLISH, {"s": s, "id": 1, **fields}, body)
        return int(self.answer(OK)[0]["seq"])

    def records(self, ref: int) -> tuple[list[tuple[int, bytes]], dict[str, Any]]:
        """Give the records for `ref` and the fields of the OK after them."""
        found = []
        while True:
            code, fields, body = self.hear()
            assert fields["ref"] == ref, fields
            if code == OK:
                return found, fields
            if code == ERROR:
                raise Refused(fields["num"], fields["err"])
            assert code == RECORD, fields
            found.append((fields["seq"], body))

    def pulls(self, n: int = 10, wait: int = 0) -> list[tuple[int, bytes]]:
        self.send(PULL, {"id": 2, "topic": "orders", "consumer": "shop", "n": n, "wait": wait})
        return self.records(2)[0]

    def settles(self, *seqs: int, act: str = "ack") -> None:
        what = {"topic": "orders", "consumer": "shop", "seqs": list(seqs), "act": act}
        self.send(SETTLE, {"id": 3, **what})
        assert self.answer(OK)[0]["ref"] == 3

    def reads(self, **place: Any) -> list[tuple[int, bytes]]:
        self.send(READ, {"id": 4, "topic": "orders", "n": 256, **place})
        return self.records(4)[0]

    def reads_all(self) -> list[tuple[int, bytes]]:
        """Give all that the topic holds."""
        found, following = [], 0
        while True:
            self.send(READ, {"id": 4, "topic": "orders", "n": 256, "seq": following})
            records, ok = self.records(4)
            found += records
            following = ok["seq"]
            if not ok["left"]:
                return found
