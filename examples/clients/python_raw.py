"""A client of the bus by hand: pyzmq and msgpack, nothing of Viscript. From docs/protocol/sb1.md alone.

    python python_raw.py ENDPOINT BROKER_KEY KEY_FILE [PARTICIPANT_KEY] [SERVICE]

It says HELLO, pings the participant, publishes and subscribes, and asks the service (or the broker for
`$SYS.info`). The key file is JSON with "public" and "secret" and must be allowed at the broker with the role
operator:  bus-broker allow FOLDER PUBLIC_KEY --role operator
"""

import json
import os
import sys
import time
from pathlib import Path

import msgpack
import zmq
from zmq.utils.monitor import recv_monitor_message

HELLO, PING, BYE, PUBLISH, SUBSCRIBE, REQUEST, REPLY = 0x01, 0x02, 0x03, 0x10, 0x12, 0x14, 0x15
WELCOME, GOODBYE, OK, ERROR, DELIVERY, REQUEST_DELIVERY, REPLY_DELIVERY, GAP = (
    0x81, 0x83, 0x84, 0x85, 0x90, 0x94, 0x95, 0x96,
)  # fmt: skip


class BusFailure(Exception):
    """The broker, or who answers, refused; or nobody is there."""


class Client:
    """One session. `deliveries` collects (subject, sender's key, body) of all subscriptions."""

    def __init__(self, endpoint, broker_key, public, secret, name):
        self.deliveries = []
        self._ids = 0
        self._answers = {}
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        # Never shown to anybody, never used twice, never left to libzmq: section 2.
        self._socket.setsockopt(zmq.ROUTING_ID, b"\x01" + os.urandom(16))
        self._socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 5000)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15000)
        self._socket.setsockopt(zmq.HEARTBEAT_TTL, 30000)
        self._socket.setsockopt_string(zmq.CURVE_SERVERKEY, broker_key)
        self._socket.setsockopt_string(zmq.CURVE_PUBLICKEY, public)
        self._socket.setsockopt_string(zmq.CURVE_SECRETKEY, secret)
        self._monitor = self._socket.get_monitor_socket()
        self._socket.connect(endpoint)
        self.welcome = None
        self._heard = self._said = time.monotonic()
        self._send(HELLO, {"name": name, "lang": "python", "ver": "raw"})
        self._until(lambda: self.welcome, 5, f"no broker answers at {endpoint}")

    def request(self, subject, body=b"", to=None, timeout=5.0):
        """Ask who serves `subject`, or the participant `to`; return the answer's body."""
        fields = {"s": subject, "dl": int(timeout * 1000)}
        if to is not None:
            fields["to"] = to
        return self._ask(REQUEST, fields, body, timeout)

    def subscribe(self, pattern):
        """Subscribe; what is published from now on comes to `deliveries`."""
        self._ask(SUBSCRIBE, {"sid": self._ids + 1, "s": pattern}, b"", 5)

    def publish(self, subject, *bodies):
        """Publish one body or more; more than one go as a batch."""
        if len(bodies) == 1:
            self._ask(PUBLISH, {"s": subject}, bodies[0], 5)
        else:
            self._ask(PUBLISH, {"s": subject, "n": len(bodies)}, msgpack.packb(bodies), 5)

    def wait_for(self, count, timeout=5.0):
        """Wait until so many deliveries have come."""
        self._until(lambda: len(self.deliveries) >= count, timeout, f"not {count} deliveries")

    def close(self):
        self._send(BYE, {"reason": "done"})
        time.sleep(0.05)  # LINGER is 0: give it time to leave
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._context.destroy(linger=0)

    def _ask(self, command, fields, body, timeout):
        """Send with an id, wait for the answer with this ref, return its body."""
        self._ids += 1
        ref = self._ids
        self._send(command, {"id": ref, **fields}, body)
        self._until(lambda: ref in self._answers, timeout + 1, "no answer")
        answer, body = self._answers.pop(ref)
        if answer.get("err"):
            raise BusFailure(f"{answer.get('num')} {answer['err']}: {answer.get('msg', '')}")
        return body

    def _send(self, command, fields, body=None):
        head = b"SB\x01" + bytes([command]) + msgpack.packb(fields)
        self._socket.send_multipart([head] if body is None else [head, body])
        self._said = time.monotonic()

    def _until(self, condition, timeout, otherwise):
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise BusFailure(otherwise)
            self._turn()

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
        elif command in (OK, REPLY_DELIVERY) or (
            command == ERROR and fields.get("ref") is not None
        ):
            self._answers[fields["ref"]] = fields, body
        elif command == DELIVERY:
            bodies = [body] if fields.get("n", 1) == 1 else msgpack.unpackb(body)
            self.deliveries += [(fields["s"], fields["from"], one) for one in bodies]
        elif command == REQUEST_DELIVERY:
            refusal = {"r": fields["r"], "num": 404, "err": "no_handler", "msg": fields["s"]}
            self._send(REPLY, refusal)
        elif command == GAP:
            print(f"too slow: lost {fields['lost']} messages", file=sys.stderr)
        elif command in (GOODBYE, ERROR):
            raise BusFailure(f"the broker says: {fields}")


def main(endpoint, broker_key, key_file, participant=None, service="$SYS.info"):
    pair = json.loads(Path(key_file).read_text())
    client = Client(endpoint, broker_key, pair["public"], pair["secret"], "python-raw")
    print("welcome", client.welcome["key"], *client.welcome["roles"])
    if participant:
        start = time.monotonic()
        pong = msgpack.unpackb(client.request("signal.ping", to=participant))
        print(f"ping {pong['t']:.3f} in {(time.monotonic() - start) * 1000:.2f} ms")
    client.subscribe("topic.raw.*")
    client.publish("topic.raw.greeting", b"hello")
    client.publish("topic.raw.batch", b"one", b"two")
    client.wait_for(3)
    for subject, sender, body in client.deliveries:
        print("heard", subject, sender, body.decode())
    print("answer", msgpack.unpackb(client.request(service)))
    client.close()


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5, 6):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except BusFailure as error:
        sys.exit(f"error: {error}")
