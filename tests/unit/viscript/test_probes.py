"""Single answers of every probe, against real sockets, programs and files."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.instance import alive, until
from viscript import probes
from viscript.rules import Probe
from viscript.supervision import health


@asynccontextmanager
async def served(answer: bytes | None) -> AsyncIterator[str]:
    """Somebody who answers so, or never; gives HOST:PORT."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is None:
            await done.wait()
        else:
            writer.write(answer)
            await reader.read(1000)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname())
    finally:
        done.set()
        server.close()
        await server.wait_closed()


async def test_tcp_is_well_when_somebody_accepts():
    async with served(b"") as place:
        assert await probes.tcp(place, 5) is None
    problem = await probes.tcp(place, 5)
    assert problem == f"{place}: Connection refused"


async def test_http_is_well_from_200_to_399():
    for status, well in [
        ("200 OK", True),
        ("302 Found", True),
        ("404 No", False),
        ("503 No", False),
    ]:
        async with served(f"HTTP/1.1 {status}\r\n\r\n".encode()) as place:
            problem = await probes.http(f"http://{place}/health?deep=1", 5)
            assert (problem is None) is well, status
            assert well or status[:3] in problem


async def test_an_http_probe_of_what_never_answers_ends_in_time():
    async with served(None) as place:
        problem = await probes.http(f"http://{place}", 0.1)
        assert problem == f"http://{place} did not answer within 0.1 s"


async def test_what_is_no_http_is_said_and_no_more_of_it_is_read_than_a_line():
    for answer in (b"SSH-2.0-x\r\n", b"x" * (1 << 20), b""):
        async with served(answer) as place:
            assert await probes.http(f"http://{place}/", 5) is not None


async def test_exec_is_well_with_code_0_and_else_its_last_line_is_told(tmp_path):
    async def run(script: str, timeout: float = 10) -> str | None:
        return await probes.run(("/bin/sh", "-c", script), str(tmp_path), {"WORD": "said"}, timeout)

    assert await run("exit 0") is None
    assert await run("echo one; echo $WORD >&2; exit 4") == "/bin/sh ended with 4: said"
    assert await run(r"printf 'a\033[31mb'; exit 1") == "/bin/sh ended with 1: ab"
    assert await run("kill -9 $$") == "/bin/sh ended with 9"
    assert "cannot be run: No such file" in (await probes.run(("/no/such",), "/", {}, 1) or "")


async def test_exec_that_takes_too_long_is_killed_with_its_children(tmp_path):
    script = "sleep 1000 & echo $! > child; echo $$ > me; sleep 1000"
    problem = await probes.run(("/bin/sh", "-c", script), str(tmp_path), os.environ, 0.5)
    assert problem == "/bin/sh did not end within 0.5 s"
    for name in ("child", "me"):
        pid = int((tmp_path / name).read_text())
        until(lambda pid=pid: not alive(pid))


async def test_exec_may_print_without_end(tmp_path):
    script = f"import sys; sys.stdout.write('x' * {8 << 20}); print(); print('last'); sys.exit(1)"
    problem = await probes.run((sys.executable, "-S", "-c", script), str(tmp_path), {}, 20)
    assert problem == f"{sys.executable} ended with 1: last"


def test_a_log_line_counts_from_the_start_of_the_run_and_over_rotations(tmp_path):
    log = tmp_path / "log"
    log.write_text("ready (of an earlier run)\n")
    probe = probes.LogLine(log, log.stat().st_size, r"^ready\b")
    assert probe.look() is not None
    with log.open("a") as file:
        file.write("not ready\nrea")
    assert probe.look() is not None
    with log.open("a") as file:
        file.write("dy in two pieces\n")
    assert probe.look() is None
    probe.close()

    probe = probes.LogLine(log, log.stat().st_size, "listening")
    assert probe.look() is not None
    log.rename(tmp_path / "log.1")
    assert probe.look() is not None
    log.write_text("listening\n")
    assert probe.look() is None
    probe.close()


def test_a_log_without_end_of_line_is_bounded(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"x" * (2 << 20) + b"\nready\n")
    probe = probes.LogLine(log, 0, "ready")
    assert probe.look() is None
    assert len(probe._rest) <= probes.LINE
    probe.close()


def test_a_log_that_is_not_there_yet_is_waited_for(tmp_path):
    probe = probes.LogLine(tmp_path / "log", 0, "ready")
    assert probe.look() is not None
    (tmp_path / "log").write_text("ready\n")
    assert probe.look() is None
    probe.close()


def test_failures_in_a_row_make_it_unwell_and_one_good_answer_well_again():
    state = health.Health(Probe("tcp", failures=3))
    told = [state.take(x) for x in ("no", "no", None, "no", "no", "no", "no", None)]
    assert told == [False, False, False, False, False, True, False, True]
    assert state.well


def test_what_gets_ready_is_asked_often_at_first():
    probe = Probe("tcp", every=1.0)
    assert [health.pause(probe, x) for x in range(6)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
