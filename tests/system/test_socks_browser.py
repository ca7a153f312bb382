"""A browser behind the SOCKS pair, through the whole product: headless Chromium and a page of 500 parts."""

import http.server
import queue
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stack import Stack, socks_stack

PARTS = 500
PAGE = f"""<!doctype html><title>parts</title><script>
async function load(number) {{
  const answer = await fetch(`/part/${{number}}`);
  return await answer.text() === "part " + number;
}}
Promise.all(Array.from({{length: {PARTS}}}, (_, number) => load(number)))
  .then(well => fetch(`/loaded/${{well.filter(Boolean).length}}`), () => fetch("/loaded/0"));
</script>"""


class Parts(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    loaded: "queue.Queue[int]" = queue.Queue()  # how many parts a page had, when it had all

    def do_GET(self) -> None:
        if told := re.fullmatch(r"/loaded/(\d+)", self.path):
            self.loaded.put(int(told[1]))
        part = re.fullmatch(r"/part/(\d+)", self.path)
        body = f"part {part[1]}" if part else PAGE
        self.send_response(200)
        self.send_header("Content-Type", "text/plain" if part else "text/html")
        self.send_header("Content-Length", str(len(body)))
        # Half of the parts end their connection: a browser opens another one.
        if part and int(part[1]) % 2:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Parts) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Stack]:
    allow = ["--allow", f"127.0.0.1/32:{port}"]
    with socks_stack(tmp_path_factory.mktemp("stack"), far=allow) as running:
        yield running


def browser(proxy: str, folder: Path) -> list[str]:
    return [
        "chromium",
        "--headless=new",
        "--no-sandbox",  # which needs rights that a container has not
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder}",
        f"--proxy-server={proxy}",
        "--proxy-bypass-list=<-loopback>",
    ]


@pytest.mark.timeout(300)
def test_a_page_of_500_parts(stack: Stack, port: int, tmp_path: Path):
    command = [
        *browser(f"socks5://127.0.0.1:{stack.socks_port}", tmp_path),
        "--remote-debugging-port=0",
    ]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [*command, f"http://127.0.0.1:{port}/"], stdout=log, stderr=log
        ) as process,
    ):
        try:
            assert Parts.loaded.get(timeout=240) == PARTS
        finally:
            process.terminate()


@pytest.mark.timeout(300)
def test_by_http_a_page_that_is_not_tunnelled_is_refused_with_the_reason(
    stack: Stack, port: int, tmp_path: Path
):
    """A browser asks a proxy for plain pages to fetch them, and tunnels the others."""
    command = [*browser(f"http://127.0.0.1:{stack.socks_port}", tmp_path), "--dump-dom"]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/"],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert "only CONNECT is spoken here" in done.stdout
