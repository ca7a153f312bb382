"""The broker's loop: reads what arrives, asks the router, writes what it decided.

One thread of plain blocking ZeroMQ, no asyncio: it costs a third of the time per message. What a message
causes is sent before the next is read. Before a stranger is met, the monitor is heard, so that a
descriptor that libzmq has reused is never mistaken for its former owner.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import Counter, deque
from collections.abc import Callable

from bus import keystore, sockets
from bus.access import AccessError, AccessList
from bus.descriptors import Cuts, Owners, cut
from bus.doorkeeper import Doorkeeper, new_token
from bus.egress import Egress, of_bus
from bus.identity import KeyPair
from bus.keystore import AccessFile
from bus.lookout import Lookout
from bus.routing.durable import Durable
from bus.routing.enrolment import STAY, Enrolment
from bus.routing.peers import Connection, Session
from bus.routing.router import Router
from bus.routing.sessions import LIMITS
from bus.settings import BrokerFiles
from bus.signals import BrokerInfo
from bus.topics.journal import Journal
from bus.version import VERSION
from bus.zap import ZapHandler

BATCH = 256  # messages read before timers and connections are looked at
# Seconds. When the last message came as soon as this, the next is awaited awake, yielding the processor to
# whoever wants it: to wake a halted one costs more than the broker's work on a message. Measured with
# benchmarks/bus.py: a quarter off the single-flight round trip on a virtual machine of 2 cores.
LIVELY = 0.0003
# Seconds between hearing that a connection is lost and acting on it: what came on it last is read first.
LAST_WORDS = 0.02
# Seconds. A pipe that drains wakes us, unless one of several blocked sessions swallowed another's news.
BLOCKED = 0.05
LOCKED = 0.1  # seconds that we wait for another program to leave our folder alone
REPORT = 10.0  # seconds between log lines about refusals
DRAIN = 2.0  # seconds that a stopping broker waits for replies
GRACE = 0.05  # seconds between GOODBYE and the cut, so that it can still leave
TICK = 0.01  # seconds after which timers are looked at, though there is always something to read
MAX_MESSAGE = LIMITS.payload + (64 << 10)  # a little more than allowed: the offender is told


class Broker:
    """A running broker. `run` returns after `stop`, which a signal handler may call."""

    def __init__(self, files: BrokerFiles, log: Callable[[str, dict[str, object]], None]) -> None:
        """Bind and read; `KeyFileError`, `AccessError` or `BusError` say what is wrong."""
        self._files = files
        self._log = log
        keypair = keystore.load(files.key_file)
        self._access_file = AccessFile(files.access_file, patience=LOCKED)
        access = self._access_file.load()
        self._egress = of_bus(files.endpoint) or Egress()
        self._context = sockets.new_context(egress=self._egress)
        try:
            self._open(keypair, access)
        except BaseException:
            self._context.destroy(linger=0)
            raise

    def _open(self, keypair: KeyPair, access: AccessList) -> None:
        self._zap = ZapHandler(self._context, {sockets.DOMAIN: self._admits})
        with self._egress:  # the socket that listens is made by this thread
            self._socket = sockets.serve(
                self._context, keypair, self._files.endpoint, max_message=MAX_MESSAGE
            )
        self._monitor = sockets.watch(self._socket)
        self.info = BrokerInfo(
            endpoint=sockets.bound_endpoint(self._socket), key=keypair.public,
            epoch=int.from_bytes(os.urandom(6)), version=VERSION, pid=os.getpid(), sessions=0,
        )  # fmt: skip
        self.router = Router(access, self.info, save_access=self._save_access, clock=time.time)
        keeper = Doorkeeper.beside(self._files.access_file, patience=LOCKED)
        sessions, change = self.router.sessions, self.router.change_access
        self._enrolment = Enrolment(sessions, change, keeper, new_token)
        self.router.add(self._enrolment)
        self.router.enrol = self._enrolment.meets
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lookout = Lookout(self.router, self._zap.refused, self._files.monitor, self._wake)
        self._zap_fd = self._zap.fileno()
        self._monitor_fd = sockets.descriptor(self._monitor)
        self._poll = select.poll()
        for fd in (
            sockets.descriptor(self._socket), self._monitor_fd, self._zap_fd, self._wake_read,
        ):  # fmt: skip
            self._poll.register(fd, select.POLLIN)
        self._blocked: dict[Session, None] = {}  # their pipe in libzmq is full
        self._cuts = Cuts(STAY)
        self._gone: deque[tuple[float, int]] = deque()  # inodes of lost connections
        self._ghosts: deque[tuple[float, Session]] = deque()  # their connection is lost
        self._owners = Owners()  # of accepted descriptors
        self._timer = 0.0  # when the router has something to do without a message
        self._lively = False
        self._woke = time.monotonic()  # when this turn of the loop began
        self._next_report = 0.0
        self._reported: Counter[str] = Counter()  # refusals that the log has
        self._running = True
        self._reload = False
        self._open_store()

    def _open_store(self) -> None:
        """Durable topics, when there is a place for them; `StoreError` when it cannot be used."""
        self._journal: Journal | None = None
        self._journal_fd = -1
        if self._files.topics_file is None:
            return
        self._journal = journal = Journal(self._files.topics_file)
        self._journal_fd = journal.fileno()
        self._poll.register(self._journal_fd, select.POLLIN)
        router = self.router
        durable = Durable(router.sessions, router.publishing, journal, time.monotonic())
        router.add(durable)
        self._lookout.sources.topics = durable.infos
        self._lookout.sources.store_problem = lambda: journal.problem

    @property
    def refused(self) -> Counter[str]:
        """How often what was refused since the start: connections and commands."""
        return self._zap.refused + self.router.sessions.denied

    @property
    def pages(self) -> str | None:
        """Where the pages over HTTP are, if they are wanted."""
        return self._lookout.url

    def stop(self) -> None:
        self._running = False
        self._wake()

    def reload(self) -> None:
        """Read the access file again, in the loop's own time."""
        self._reload = True
        self._wake()

    def run(self) -> None:
        linger = 0.0  # seconds that libzmq may take for what it was handed
        try:
            self._lookout.start()
            busy = False
            while self._running:
                busy = self._turn(self._wait(0.0 if busy else self._pause()))
            deadline = self._drain()
            self.router.lame("the broker is stopping")
            self._write()
            time.sleep(GRACE)
            linger = max(0.0, deadline - time.monotonic())
        finally:
            self._lookout.close()
            if self._journal is not None:
                self._journal.close()
            self._socket.disable_monitor()
            self._context.destroy(linger=int(linger * 1000))
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _drain(self) -> float:
        """Let what is under way end, and what waits for slow readers leave; give when that must be over.

        With nothing under way this takes no time.
        """
        now = time.monotonic()
        self.router.drain(DRAIN, "the broker is stopping", now)
        self._write()
        deadline = now + DRAIN
        busy = False
        while (not self.router.drained or self._blocked) and (
            left := deadline - time.monotonic()
        ) > 0:
            busy = self._turn(self._wait(0.0 if busy else min(self._pause(), left)))
        return deadline

    def _turn(self, ready: set[int]) -> bool:
        """Do what there is to do, once; True when there may be more at once."""
        more = self._zap.drain() if self._zap_fd in ready else False
        if self._wake_read in ready:
            self._lookout.answer()
        if self._monitor_fd in ready:
            self._hear_of_connections()
        now = time.monotonic()
        if self._journal is not None and self._journal_fd in ready:
            for then, outcome in self._journal.take():
                then(outcome, now)
        self._retry_blocked()
        for _ in range(BATCH):
            if not self._receive(now):
                break
            self._write()
        else:
            more = True
        self._bury(now)
        if now >= self._timer:
            self.router.handle_timer(now)
            self._timer = now + min(self.router.next_timer(now), TICK)
        if self._reload:
            self._reload_access()
        if now >= self._next_report:
            self._report_refusals(now)
        self._write()
        self.router.sessions.denied.update(self._cuts.carry_out(now))
        # Writing may have swallowed the descriptor's edge, so look at the socket's state itself; looking
        # swallows it as well, and with it the news that a full pipe has room again.
        return more or sockets.readable(self._socket) or self._retry_blocked()

    def _pause(self) -> float:
        """Seconds until the next timer."""
        now = time.monotonic()
        timer = self.router.next_timer(now)
        self._timer = now + min(timer, TICK)
        due = [queue[0][0] for queue in (self._gone, self._ghosts) if queue]
        return max(0.0, min([now + timer, *due, *self._cuts.next]) - now)

    def _wait(self, seconds: float) -> set[int]:
        """The descriptors that have something to tell, after at most `seconds`."""
        limit = min(seconds, BLOCKED) if self._blocked else seconds
        start = time.monotonic()
        self._lookout.pulse.took(start - self._woke)
        found = self._poll.poll(0)
        while not found and self._lively and time.monotonic() < start + min(limit, LIVELY):
            os.sched_yield()
            found = self._poll.poll(0)
        if not found and limit > 0:
            found = self._poll.poll(limit * 1000)
        self._woke = time.monotonic()
        self._lively = self._woke < start + LIVELY
        ready = {fd for fd, _ in found}
        if self._wake_read in ready:
            os.read(self._wake_read, 512)
        return ready

    def _receive(self, now: float) -> bool:
        """Read one message and let the router decide; False when there is none."""
        receive = self._socket.recv
        try:
            first = receive(sockets.DONTWAIT, copy=False)
        except sockets.Again:
            return False
        frame = receive(0, copy=False)
        head, body, parts = frame.bytes, None, 1
        while frame.more:
            frame = receive(0, copy=False)
            parts += 1
            if parts == 2:
                body = frame.bytes
        rid, user = first.bytes, str(first.get("User-Id"))
        session = self.router.session(rid, user)
        if session is None:
            self._meet(
                first, Connection(rid, user), (head, body) if parts <= 2 else (b"", None), now
            )
        elif parts > 2:
            self.router.malformed(session, "a message is one or two frames after the routing id")
        else:
            self.router.handle(session, head, body, now)
        return True

    def _meet(
        self,
        first: sockets.Frame,
        peer: Connection,
        message: tuple[bytes, bytes | None],
        now: float,
    ) -> None:
        """A message from a connection that is no session (yet)."""
        fd = int(first.get(sockets.SRCFD))
        self._hear_of_connections()  # its descriptor may be another's by now
        inode = self._owners.spoke(fd, peer.number)
        self._hear_of_connections()  # or may have become so while we looked
        if not self._owners.owns(fd, peer.number):
            inode = 0
        else:
            self._cuts.over(fd)
        self.router.meet(Connection(peer.rid, peer.user, fd, inode), *message, now)
        if inode == 0 and (ghost := self.router.session(peer.rid, peer.user)) is not None:
            self._ghosts.append((now + LAST_WORDS, ghost))  # lost before it was met

    def _hear_of_connections(self) -> None:
        for event in sockets.events(self._monitor):
            if event.kind == sockets.ACCEPTED:
                self._owners.accepted(event.value, self._zap.last)
                self._cuts.accepted(event.value, time.monotonic())
            elif event.kind == sockets.DISCONNECTED:
                self._cuts.over(event.value)
                if (inode := self._owners.lost(event.value)) is not None:
                    self._gone.append((time.monotonic() + LAST_WORDS, inode))
            elif event.kind == sockets.ACCEPT_FAILED:
                self._log("accept failed", {"error": os.strerror(event.value)})

    def _admits(self, key: str, address: str) -> bool:
        """Whether the handshake succeeds: the key is allowed, or may ask to be."""
        self._hear_of_connections()  # it was accepted before it is given its number
        return key in self.router.sessions.access or self._enrolment.admits(
            address, time.monotonic()
        )

    def _bury(self, now: float) -> None:
        """End the sessions whose connections are lost and have been read to the end."""
        while self._gone and self._gone[0][0] <= now:
            self.router.disconnected(self._gone.popleft()[1])
        while self._ghosts and self._ghosts[0][0] <= now:
            self.router.lost(self._ghosts.popleft()[1])

    def _report_refusals(self, now: float) -> None:
        """Tell at intervals what was refused since: one line however many knock."""
        self._next_report = now + REPORT
        self._lookout.pulse.tick()
        refused = self.refused
        if refused != self._reported:
            self._log("refused", dict(refused - self._reported))
            self._reported = refused

    def _reload_access(self) -> None:
        self._reload = False
        try:
            access = self._access_file.load()
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the list in force stays
            self._lookout.access_problem = f"the access list was not reloaded: {error}"
            self._log("access list not reloaded", {"error": str(error)})
            return
        self._lookout.access_problem = ""
        self.router.replace_access(access)
        self._log("access list reloaded", {"keys": len(access.entries)})

    def _save_access(self, access: AccessList) -> None:
        try:
            self._access_file.save(access)
        except AccessError:
            self._reload = True
            raise
        self._lookout.access_problem = ""  # the file is what is in force again

    def _write(self) -> None:
        """Send what the router has decided, as far as the peers take it. Who is cut is cut before."""
        for connection in self.router.sessions.take_cuts():
            cut(connection, reset=True)
        for session in self.router.sessions.take_dirty():
            if session not in self._blocked:
                self._flush(session)
        for stray in self.router.sessions.take_strays():
            with contextlib.suppress(sockets.ZMQError):  # gone or full: then it need not hear
                self._send(stray.connection.rid, stray.head, None)
            if stray.cut:
                self._cuts.soon(stray.connection, time.monotonic() + GRACE)

    def _retry_blocked(self) -> bool:
        """Whether anything left that was waiting for room."""
        blocked, self._blocked = self._blocked, {}
        return sum(map(self._flush, blocked)) > 0

    def _flush(self, session: Session) -> bool:
        """Send what the session's pipe takes; whether anything left."""
        outbox, rid = session.outbox, session.connection.rid
        left = False
        while (outgoing := session.parcel or outbox.next) is not None:
            if outgoing is not session.parcel and session.bundles and len(outbox) > 1:
                outgoing = session.parcel = outbox.bundle()
            try:
                self._send(rid, outgoing.head, outgoing.body)
            except sockets.Again:
                self._blocked[session] = None
                break
            except sockets.ZMQError:
                # EHOSTUNREACH: gone. The monitor tells it once, and that may have been before HELLO.
                outbox.clear()
                session.parcel = None
                self._ghosts.append((time.monotonic() + LAST_WORDS, session))
                break
            left = True
            if outgoing is session.parcel:
                session.parcel = None
            else:
                outbox.pop()
            session.bytes_out += outgoing.size
            session.messages_out += outgoing.count
        return left

    def _send(self, rid: bytes, head: bytes, body: bytes | None) -> None:
        """Hand one message to libzmq. Only the first frame can be refused, so none is torn."""
        send = self._socket.send
        send(rid, sockets.MORE)
        if body is None:
            send(head, sockets.DONTWAIT)
        else:
            send(head, sockets.MORE)
            send(body, sockets.DONTWAIT, copy=len(body) < sockets.COPY_BELOW)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b".")
