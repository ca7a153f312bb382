"""A client of the bus in Python: pyzmq and msgpack, nothing of Viscript. From docs/protocol/sb1.md alone.

    pip install pyzmq msgpack
    python client.py ENDPOINT BROKER_KEY KEY_FILE NAME PEER...

It says HELLO, pings, tells its PEERs hello and hears theirs, serves app.echo.NAME and asks theirs, stores
an order in the durable topic "orders" and consumes those of all by its consumer NAME, which an operator
has made. The key file is JSON with "public" and "secret"; the role app is enough.
"""

import json
import os
import sys
import time
from pathlib import Path

import msgpack
import zmq
from zmq.utils.monitor import recv_monitor_message

HELLO, PING, BYE, PUBLISH, SUBSCRIBE, REQUEST, REPLY, SERVE = 1, 2, 3, 0x10, 0x12, 0x14, 0x15, 0x16
PULL, SETTLE = 0x20, 0x21
WELCOME, PONG, GOODBYE, OK, ERROR = 0x81, 0x82, 0x83, 0x84, 0x85
DELIVERY, RECORD, REQUEST_DELIVERY, REPLY_DELIVERY = 0x90, 0x92, 0x94, 0x95


class BusFailure(Exception):
    """The broker, or who answers, refused; or nobody is there."""


class Client:
    """One session: commands that wait for their answer; what comes meanwhile goes to the callbacks."""

    def __init__(self, endpoint, broker_key, public, secret, name):
        self.on_delivery = print  # called with subject, sender's key and body
        self.services = {}  # subject → function from body to body
        self._ids = 0
        self._answers = {}
        self._records = []
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        # Never shown to anybody, never used twice, never left to libzmq: section 2.
        self._socket.setsockopt(zmq.ROUTING_ID, b"\x01" + os.urandom(16))
        self._socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 10000)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15000)
        self._socket.setsockopt(zmq.HEARTBEAT_TTL, 30000)
        self._socket.setsockopt_string(zmq.CURVE_SERVERKEY, broker_key)
        self._socket.setsockopt_string(zmq.CURVE_PUBLICKEY, public)
        self._socket.setsockopt_string(zmq.CURVE_SECRETKEY, secret)
        self._monitor = self._socket.get_monitor_socket()
        self._socket.connect(endpoint)
        self.welcome = None
        self.pongs = 0
        self._heard = self._said = time.monotonic()
        self._send(HELLO, {"name": name, "lang": "python", "caps": ["durable"]})
        self.until(lambda: self.welcome, f"no broker answers at {endpoint}", 5)

    def ping(self):
        """Ask the broker for a sign of life."""
        pongs = self.pongs
        self._send(PING, {"t": 4711})
        self.until(lambda: self.pongs > pongs, "no PONG")

    def request(self, subject, body=b"", to=None, timeout=10.0):
        """Ask who serves `subject`, or the participant `to`; return the answer's body."""
        fields = {"s": subject, "dl": int(timeout * 1000)}
        if to is not None:
            fields["to"] = to
        return self._ask(REQUEST, fields, body, timeout)[1]

    def serve(self, subject, answer):
        """Answer requests on `subject` with `answer(body)`."""
        self.services[subject] = answer
        self._ask(SERVE, {"s": subject})

    def subscribe(self, pattern):
        """Subscribe; what is published from now on goes to `on_delivery`."""
        self._ask(SUBSCRIBE, {"sid": self._ids + 1, "s": pattern})

    def publish(self, subject, *bodies):
        """Publish one body or more; more than one go as a batch."""
        if len(bodies) == 1:
            self._send(PUBLISH, {"s": subject}, bodies[0])
        else:
            self._send(PUBLISH, {"s": subject, "n": len(bodies)}, msgpack.packb(bodies))

    def store(self, subject, body, message_id):
        """Publish to a durable topic; return the sequence once it is on disk.

        Said again with the same id it is stored once.
        """
        return self._ask(PUBLISH, {"s": subject, "mid": message_id}, body)[0]["seq"]

    def pull(self, topic, consumer, n, wait):
        """Up to `n` records as (sequence, body); each comes again until it is settled."""
        fields = {"topic": topic, "consumer": consumer, "n": n, "wait": int(wait * 1000)}
        self._ask(PULL, fields, timeout=wait + 5)
        records, self._records = self._records, []
        return records

    def settle(self, topic, consumer, *seqs):
        """Say that records are done, once and for all."""
        self._ask(SETTLE, {"topic": topic, "consumer": consumer, "seqs": seqs})

    def close(self):
        self._send(BYE, {"reason": "done"})
        time.sleep(0.1)  # LINGER is 0: give it time to leave
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._context.destroy(linger=0)

    def until(self, condition, otherwise, timeout=30.0):
        """Take in what comes until `condition` holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise BusFailure(otherwise)
            self._turn()

    def _ask(self, command, fields, body=None, timeout=10.0):
        """Send with an id, wait for the answer with this ref, return its fields and body."""
        self._ids += 1
        ref = self._ids
        self._send(command, {"id": ref, **fields}, body)
        self.until(lambda: ref in self._answers, "no answer", timeout + 1)
        answer, body = self._answers.pop(ref)
        if answer.get("err"):
            raise BusFailure(f"{answer.get('num')} {answer['err']}: {answer.get('msg', '')}")
        return answer, body

    def _send(self, command, fields, body=None):
        head = b"SB\x01" + bytes([command]) + msgpack.packb(fields)
        self._socket.send_multipart([head] if body is None else [head, body])
        self._said = time.monotonic()

    def _turn(self):
        """Wait a little, take in what comes, keep the session alive."""
        if self._socket.poll(50):
            head, *rest = self._socket.recv_multipart()
            self._heard = time.monotonic()
            self._take(head[3], msgpack.unpackb(head[4:]), rest[0] if rest else b"")
        elif self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                raise BusFailure("the broker does not allow this key")
            if event in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED):
                raise BusFailure("the connection was lost")
        heartbeat = self.welcome["hb"] / 1000 if self.welcome else 10
        if self.welcome and time.monotonic() - self._said > heartbeat / 2:
            self._send(PING, {})
        if time.monotonic() - self._heard > 3 * heartbeat:
            raise BusFailure("the broker is silent")

    def _take(self, command, fields, body):
        if command == WELCOME:
            self.welcome = fields
        elif command == PONG:
            self.pongs += 1
        elif command in (OK, REPLY_DELIVERY) or (command == ERROR and "ref" in fields):
            self._answers[fields["ref"]] = fields, body
        elif command == DELIVERY:
            for one in [body] if fields.get("n", 1) == 1 else msgpack.unpackb(body):
                self.on_delivery(fields["s"], fields["from"], one)
        elif command == RECORD:
            self._records.append((fields["seq"], body))
        elif command == REQUEST_DELIVERY:
            self._answer(fields, body)
        elif command in (GOODBYE, ERROR):
            raise BusFailure(f"the broker says: {fields}")

    def _answer(self, request, body):
        answer = self.services.get(request["s"])
        if answer is None:
            refusal = {"r": request["r"], "num": 404, "err": "no_handler", "msg": request["s"]}
            self._send(REPLY, refusal)
        else:
            self._send(REPLY, {"r": request["r"]}, answer(body))


def main(endpoint, broker_key, key_file, name, *peers):
    pair = json.loads(Path(key_file).read_text())
    client = Client(endpoint, broker_key, pair["public"], pair["secret"], name)
    print("welcome", client.welcome["key"])
    client.ping()
    print("pong")
    heard, served = set(), []

    def greet():
        client.publish(f"app.hello.{name}", f"hello from {name}".encode())

    def hear(subject, _sender, body):
        peer = subject.rpartition(".")[2]
        if peer in peers and peer not in heard:
            heard.add(peer)
            print("heard", body.decode())
            greet()  # who is new here has not heard us

    def echo(body):
        served.append(body)
        return f"{name} heard {body.decode()}".encode()

    client.on_delivery = hear
    client.serve(f"app.echo.{name}", echo)
    client.subscribe("app.hello.*")
    greet()
    client.until(lambda: len(heard) == len(peers), "not all peers are there")
    for peer in peers:
        print("answer", client.request(f"app.echo.{peer}", name.encode()).decode())
    print("stored", client.store(f"app.order.{name}", f"order of {name}".encode(), name))
    orders = 0
    while orders < len(peers) + 1:
        for seq, body in client.pull("orders", name, n=16, wait=5):
            print(f"order {seq}: {body.decode()}")
            client.settle("orders", name, seq)
            orders += 1
    client.until(lambda: len(served) == len(peers), "not all peers asked")
    print("served", len(served))
    client.close()


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except BusFailure as error:
        sys.exit(f"error: {error}")
