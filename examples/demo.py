"""The whole product in one story: what `make demo` runs.

Starts the bus, the launcher, two nodes and a SOCKS pair in a home of its own, fetches real pages
through them with curl, and takes everything down again. Every command is printed before its
output and can be typed by hand. Exit code 0 only when all of it worked; else 1, with the list of
what did not.
"""

import contextlib
import hashlib
import http.server
import json
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
import yaml

MIB = 2**20
FILE_SIZE = 64 * MIB
PAGE = b"<h1>It works</h1>\n"
SLOW_LINES, SLOW_PAUSE = 6, 0.4  # seconds
MOST_RESIDENT = 400 * MIB
BIN = Path(sys.executable).parent


class Story:
    """Runs the commands, prints them, and remembers what went wrong."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.failures: list[str] = []
        path = os.pathsep.join((str(BIN), os.environ.get("PATH", os.defpath)))
        self._environment = {
            **{name: value for name, value in os.environ.items() if "VISCRIPT" not in name},
            "VISCRIPT_HOME": str(home),
            "PATH": path,
        }

    def tell(self, text: str) -> None:
        print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)

    def check(self, what: str, *, ok: bool) -> None:
        print(f"  {'ok  ' if ok else 'FAIL'} {what}", flush=True)
        if not ok:
            self.failures.append(what)

    def run(self, *command: str, timeout: float = 60) -> str:
        """Print a command, run it, print its output and give it back."""
        return self._run(shlex.join(command), command, timeout)

    def shell(self, line: str, timeout: float = 120) -> str:
        """Do the same with a line for the shell."""
        return self._run(line, ("sh", "-c", line), timeout)

    def _run(self, shown: str, command: tuple[str, ...], timeout: float) -> str:
        print(f"$ {shown}", flush=True)
        result = subprocess.run(
            command,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
        output = result.stdout.decode(errors="replace")
        print(output, end="" if output.endswith("\n") or not output else "\n", flush=True)
        if result.returncode != 0:
            self.check(f"{shown}: exit code {result.returncode}", ok=False)
        return output

    def ask(self, *command: str) -> Any:
        """Run a command for its JSON, silently: the story shows what people read."""
        output = subprocess.run(
            [*command, "--json"],
            env=self._environment,
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        ).stdout
        return json.loads(output)

    def pipe(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE)


class Web(http.server.BaseHTTPRequestHandler):
    """A small page, a large file and a slow stream."""

    file: Path

    def do_GET(self) -> None:
        match self.path:
            case "/":
                self._head(len(PAGE))
                self.wfile.write(PAGE)
            case "/random":
                self._head(FILE_SIZE)
                with self.file.open("rb") as source:
                    self.connection.sendfile(source)
            case "/slow":
                self._head(None)
                for number in range(SLOW_LINES):
                    self.wfile.write(f"line {number}\n".encode())
                    time.sleep(SLOW_PAUSE)
            case _:
                self.send_error(404)

    def _head(self, length: int | None) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_request(self, *_: object) -> None:  # the commands are told, not the requests
        pass


@contextlib.contextmanager
def web_server(file: Path) -> Iterator[int]:
    """Serve on a free loopback port, which is given."""
    handler = type("Handler", (Web,), {"file": file})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_config(target: Path, socks_port: int, web_port: int) -> None:
    """Copy the shipped config, with a free SOCKS port and an exit that may reach our web server."""
    packaged = files("viscript") / "_config"
    source = packaged if packaged.is_dir() else Path(str(files("viscript"))).parent / "config"
    config = yaml.safe_load((source / "config.yaml").read_text())
    near, far = config["apps"]["socks-client"], config["apps"]["socks-server"]
    near["args"] = [*near.get("args", []), "--listen", f"127.0.0.1:{socks_port}"]
    far["args"] = [*far.get("args", []), "--allow", f"127.0.0.1/32:{web_port}"]
    target.write_text(yaml.safe_dump(config, sort_keys=False))


def have_curl() -> None:
    """Install curl if it is missing; raise SystemExit with the way out."""
    if shutil.which("curl"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit("demo: curl is missing; install it: apt-get install curl (as root)")
    for command in ("apt-get update -qq", "apt-get install -y -qq --no-install-recommends curl"):
        print(f"$ {command}", flush=True)
        subprocess.run(command.split(), stdout=subprocess.DEVNULL, check=True)


# The chapters -----------------------------------------------------------------------------------


def start(story: Story) -> dict[str, int]:
    story.tell("One command starts the bus, the launcher, two nodes and a SOCKS pair")
    story.run("viscript", "up", "--detach")
    story.run("viscript", "apps")
    story.run("viscript", "la")
    apps = story.ask("viscript", "la")
    ids = {app["app"]: app["id"] for app in apps}
    wanted = {"node-manager", "alpha", "beta", "socks-server", "socks-client"}
    running = {app["app"] for app in apps if app["state"] == "running"}
    story.check(f"running: {', '.join(sorted(wanted))}", ok=wanted <= running)
    story.run("viscript", "ping", str(ids.get("alpha", 0)))
    story.run("viscript", "ru", str(ids.get("socks-client", 0)))
    return ids


def fetch(story: Story, socks_port: int, web_port: int, digest: str) -> None:
    story.tell("curl fetches a page, a file and a stream through alpha and beta")
    curl = ("curl", "-sS", "--max-time", "60", "--socks5-hostname", f"127.0.0.1:{socks_port}")
    web = f"http://127.0.0.1:{web_port}"
    page = story.run(*curl, f"{web}/")
    story.check("the page arrived", ok=page.encode() == PAGE)

    download = f"{shlex.join(curl)} {web}/random | sha256sum"
    output, rate = timed(story, download, FILE_SIZE)
    story.check(f"64 MiB of random bytes arrived unharmed, {rate:.0f} MB/s", ok=digest in output)

    print(f"$ {shlex.join((*curl, '-N', f'{web}/slow'))}", flush=True)
    arrivals = []
    with story.pipe(*curl, "-N", f"{web}/slow") as process:
        assert process.stdout is not None
        for line in process.stdout:
            arrivals.append(time.monotonic())
            print(line.decode(), end="", flush=True)
    spread = arrivals[-1] - arrivals[0] if arrivals else 0.0
    streamed = len(arrivals) == SLOW_LINES and spread > SLOW_PAUSE * (SLOW_LINES - 2)
    story.check(f"{len(arrivals)} lines came one by one, over {spread:.1f} s", ok=streamed)

    story.tell("ten downloads at once")
    ten = f"for i in 1 2 3 4 5 6 7 8 9 10; do {download} & done; wait"
    output, rate = timed(story, ten, 10 * FILE_SIZE)
    whole = output.count(digest) == len(output.splitlines()) == 10
    story.check(f"ten times 64 MiB arrived unharmed, {rate:.0f} MB/s together", ok=whole)


def timed(story: Story, line: str, size: int) -> tuple[str, float]:
    """Run a shell line that moves so many bytes; give its output and MB/s."""
    began = time.monotonic()
    output = story.shell(line)
    return output, size / (time.monotonic() - began) / 1e6


def one_more(story: Story, web_port: int) -> None:
    story.tell("one more app, with arguments, by its short command; then it is shut down")
    port, before = free_port(), story.ask("viscript", "la")
    story.run("viscript", "s", "socks-client", "--listen", f"127.0.0.1:{port}")
    known = {app["id"] for app in before}
    new = [app for app in story.ask("viscript", "la") if app["id"] not in known]
    number = new[0]["id"] if new else 0
    story.check(f"its id {number} is the next number", ok=number == max(known) + 1)
    page = story.run(
        *("curl", "-sS", "--max-time", "20", "--socks5-hostname", f"127.0.0.1:{port}"),
        f"http://127.0.0.1:{web_port}/",
    )
    story.check("the page arrived through it too", ok=page.encode() == PAGE)
    story.run("viscript", "sd", str(number))
    story.run("viscript", "la")
    ended = [app for app in story.ask("viscript", "la") if app["id"] == number]
    how = ended[0] if ended else {}
    gone = how.get("state") not in (None, "running") and how.get("exit") is not None
    story.check("it is gone, and how it ended is shown", ok=gone)


def weigh(story: Story, processes: list[psutil.Process]) -> None:
    story.tell("what it takes")
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            resident = process.memory_info().rss
            total += resident
            print(f"  {process.pid:>7} {resident / MIB:6.1f} MiB  {shlex.join(process.cmdline())}")
    story.check(
        f"{len(processes)} processes, {total / MIB:.0f} MiB resident together"
        f" (at most {MOST_RESIDENT // MIB})",
        ok=0 < total <= MOST_RESIDENT,
    )


def stop(story: Story, processes: list[psutil.Process]) -> None:
    story.tell("one command ends it all")
    ports = listening(processes)
    story.run("viscript", "down")
    _, alive = psutil.wait_procs(processes, timeout=5)
    story.check(f"all {len(processes)} processes have ended", ok=bool(processes) and not alive)
    taken = [port for port in ports if not is_free(port)]
    story.check(f"every port is free: {', '.join(map(str, sorted(ports)))}", ok=not taken)
    left = sorted(path for path in story.home.rglob("*") if not path.is_dir())
    odd = [path for path in left if not stat.S_ISREG(path.lstat().st_mode)]
    names = sorted({str(path.relative_to(story.home).parts[0]) for path in left})
    story.check(f"nothing but files is left, in {', '.join(names)}", ok=not odd)


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process of this home: its environment says so, whoever its parent is."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("VISCRIPT_HOME") == str(home):
                found.append(process)
    return found


def listening(processes: list[psutil.Process]) -> set[int]:
    ports: set[int] = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            ports |= {
                entry.laddr.port
                for entry in process.net_connections("tcp")
                if entry.status == psutil.CONN_LISTEN
            }
    return ports


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
        return True


def play(story: Story, file: Path) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with web_server(file) as web_port:
        socks_port = free_port()
        write_config(story.home / "config.yaml", socks_port, web_port)
        print(f"$ export VISCRIPT_HOME={story.home}")
        start(story)
        fetch(story, socks_port, web_port, digest)
        one_more(story, web_port)
        processes = processes_of(story.home)
        weigh(story, processes)
        stop(story, processes)


def clean_up(story: Story) -> None:
    """Leave nothing running, whatever happened before."""
    if not processes_of(story.home):
        return
    with contextlib.suppress(subprocess.SubprocessError):
        story.run("viscript", "down")
    for process in processes_of(story.home):
        with contextlib.suppress(psutil.Error):
            process.kill()


def main() -> int:
    have_curl()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up then too
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="viscript-demo-") as folder:
        home, file = Path(folder, "home"), Path(folder, "random")
        home.mkdir(mode=0o700)
        file.write_bytes(os.urandom(FILE_SIZE))
        story = Story(home)
        try:
            play(story, file)
        except (OSError, subprocess.SubprocessError, KeyError, ValueError) as error:
            story.check(f"the story broke off: {error!r}", ok=False)
        finally:
            clean_up(story)
    if story.failures:
        print("\nThe demo failed:", *story.failures, sep="\n  - ")
        return 1
    print(f"\nAll of it worked, in {time.monotonic() - began:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
