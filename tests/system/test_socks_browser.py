"""A browser behind the SOCKS pair, through the whole product: headless Chromium and a page of 500 parts."""

import http.server
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stack import Stack, socks_stack

PARTS = 500
PAGE = f"""<!doctype html><title>parts</title><p id=done>0<script>
let done = 0, wrong = 0;
async function load(number) {{
  const answer = await fetch(`/part/${{number}}`);
  if (await answer.text() !== "part " + number) wrong++;
  document.getElementById("done").textContent = `${{++done}} parts, ${{wrong}} wrong`;
}}
for (let number = 0; number < {PARTS}; number++) load(number);
</script>"""


class Parts(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
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


def browse(proxy: str, url: str, folder: Path) -> str:
    """The page as it is when all is loaded."""
    options = [
        "--headless=new",
        "--no-sandbox",  # which needs rights that a container has not
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder}",
        f"--proxy-server={proxy}",
        "--proxy-bypass-list=<-loopback>",
        "--virtual-time-budget=60000",
        "--dump-dom",
    ]
    done = subprocess.run(
        ["chromium", *options, url], capture_output=True, text=True, timeout=240, check=True
    )
    return done.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scheme", ["socks5", "http"])
def test_a_page_of_500_parts(stack: Stack, port: int, tmp_path: Path, scheme: str):
    # By HTTP only what a browser tunnels goes through a proxy that fetches nothing: a page does not.
    page = browse(f"{scheme}://127.0.0.1:{stack.socks_port}", f"http://127.0.0.1:{port}/", tmp_path)
    if scheme == "socks5":
        assert f"{PARTS} parts, 0 wrong" in page
    else:
        assert "only CONNECT is spoken here" in page
