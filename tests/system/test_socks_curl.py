"""The SOCKS pair with the real curl, through the whole product."""

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.stack import Stack, free_port, socks_stack
from tests.support.web import PAGE, SLOW_LINES, SLOW_PAUSE, Web, web_server

PROXY_FAILED = 97  # CURLE_PROXY
CUT = {18, 56}  # CURLE_PARTIAL_FILE, CURLE_RECV_ERROR


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with web_server() as running:
        yield running


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, web: Web) -> Iterator[Stack]:
    allow = ["--allow", f"127.0.0.1/32:{web.port}", "--allow", "127.0.0.2/32"]
    with socks_stack(tmp_path_factory.mktemp("stack"), far=allow) as running:
        yield running


def curl(socks_port: int, *arguments: str, credentials: str = "") -> list[str]:
    proxy = f"socks5h://{credentials}127.0.0.1:{socks_port}"
    return ["curl", "-sS", "--max-time", "60", "--proxy", proxy, *arguments]


def get(socks_port: int, url: str, credentials: str = "") -> subprocess.CompletedProcess[bytes]:
    command = curl(socks_port, url, credentials=credentials)
    return subprocess.run(command, capture_output=True, timeout=90, check=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_page(stack: Stack, web: Web, host: str):
    assert get(stack.socks_port, f"http://{host}:{web.port}/").stdout == PAGE


def test_a_large_file_arrives_unharmed(stack: Stack, web: Web):
    found = get(stack.socks_port, f"http://127.0.0.1:{web.port}/random")
    assert hashlib.sha256(found.stdout).hexdigest() == web.digest


def test_ten_large_files_at_once(stack: Stack, web: Web):
    url = f"http://127.0.0.1:{web.port}/random"
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda _: get(stack.socks_port, url), range(10)))
    assert {hashlib.sha256(each.stdout).hexdigest() for each in found} == {web.digest}


def test_a_slow_stream_is_not_held_back(stack: Stack, web: Web):
    command = curl(stack.socks_port, "-N", f"http://127.0.0.1:{web.port}/slow")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        arrivals = [time.monotonic() for _ in process.stdout]
    assert len(arrivals) == SLOW_LINES
    assert arrivals[-1] - arrivals[0] > SLOW_PAUSE * (SLOW_LINES - 2)


@pytest.mark.parametrize(
    ("host", "code"),
    [("127.0.0.2", 5), ("127.0.0.3", 2), ("192.168.0.1", 2), ("[::1]", 2)],
)
def test_refused_and_not_allowed(stack: Stack, host: str, code: int):
    found = get(stack.socks_port, f"http://{host}:{free_port()}/")
    assert found.returncode == PROXY_FAILED
    assert f"({code})" in found.stderr.decode()


def test_names_are_resolved_at_the_far_end(stack: Stack):
    found = get(stack.socks_port, "http://no-such-host.invalid/")
    assert found.returncode == PROXY_FAILED  # not 6, "could not resolve host": curl did not try
    assert "(4)" in found.stderr.decode()


def test_username_and_password(stack: Stack, web: Web, tmp_path: Path):
    users, port = tmp_path / "users", free_port()
    users.write_text("ann:secret\n")
    users.chmod(0o600)
    stack.run("s", "socks-client", "--listen", f"127.0.0.1:{port}", "--user-file", str(users))
    url = f"http://127.0.0.1:{web.port}/"
    assert get(port, url, "ann:secret@").stdout == PAGE
    assert get(port, url, "ann:wrong@").returncode == PROXY_FAILED
    assert get(port, url).returncode == PROXY_FAILED
    stack.run("sd", str(stack.app("socks-client")["id"]))


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_a_node_killed_in_mid_transfer_fails_the_download_at_once(
    stack: Stack, web: Web, name: str
):
    command = curl(
        stack.socks_port, "-N", "-o", "/dev/null", f"http://127.0.0.1:{web.port}/endless"
    )
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        time.sleep(1)
        assert process.poll() is None
        os.kill(stack.app(name)["pid"], signal.SIGKILL)
        assert process.wait(5) in CUT
        assert process.stderr is not None
        assert b"reset" in process.stderr.read()
    if stack.app(name)["state"] not in {"running", "starting", "backoff"}:
        stack.run("s", name)
    retry = curl(stack.socks_port, "--retry", "20", "--retry-all-errors", "--retry-delay", "1")
    found = subprocess.run(
        [*retry, f"http://127.0.0.1:{web.port}/"], capture_output=True, timeout=60, check=False
    )
    assert found.stdout == PAGE


def test_a_broker_killed_in_mid_transfer_is_not_felt(stack: Stack, web: Web):
    command = curl(stack.socks_port, "-N", f"http://127.0.0.1:{web.port}/slow")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        os.kill(stack.ask("status")["broker"]["pid"], signal.SIGKILL)
        assert process.stdout is not None
        assert len(process.stdout.readlines()) == SLOW_LINES
    assert get(stack.socks_port, f"http://127.0.0.1:{web.port}/").stdout == PAGE
