"""One large download through two nodes, against `ssh -D`: the same server, the same curl, in turn.

Ours is the full stack as a user runs it: broker, launcher, node manager, nodes alpha and beta, SOCKS
pair. The peer is OpenSSH with its fastest cipher, its own sshd on a loopback port and throw-away keys.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import Report, arguments, rate
from tests.support.stack import free_port, socks_stack

SIZE, RUNS = 512_000_000, 5
QUICK_SIZE, QUICK_RUNS = 128_000_000, 3
AT_LEAST = 0.4  # of ssh
CIPHER = "aes128-gcm@openssh.com"


@contextlib.contextmanager
def file_server(folder: Path, size: int) -> Iterator[int]:
    """Answer every connection with one file by sendfile(2), which no client outruns here."""
    file = folder / "file"
    with file.open("wb") as target:
        target.truncate(size)  # neither side compresses, so zeros are as good as anything
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode()

    def answer(client: socket.socket) -> None:
        with client, file.open("rb") as source, contextlib.suppress(OSError):
            client.recv(65536)
            client.sendall(head)
            at = 0
            while at < size:
                at += os.sendfile(client.fileno(), source.fileno(), at, size - at)
            client.shutdown(socket.SHUT_WR)
            client.recv(1)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                threading.Thread(target=answer, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def ssh_proxy(folder: Path) -> Iterator[int]:
    """Run sshd and `ssh -D` over it; give the SOCKS port."""
    ssh_port, socks_port = free_port(), free_port()
    host, user = folder / "host", folder / "user"
    for key in (host, user):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(command, check=True)
    authorized, known, config = folder / "authorized", folder / "known", folder / "sshd_config"
    authorized.write_text(user.with_suffix(".pub").read_text())
    known.write_text(f"[127.0.0.1]:{ssh_port} {host.with_suffix('.pub').read_text()}")
    config.write_text(
        f"ListenAddress 127.0.0.1\nPort {ssh_port}\nHostKey {host}\nPidFile none\n"
        f"AuthorizedKeysFile {authorized}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nCiphers {CIPHER}\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd locks itself in
    log = (folder / "ssh.log").open("wb")
    options = {
        "BatchMode": "yes",
        "Ciphers": CIPHER,
        "Compression": "no",
        "ExitOnForwardFailure": "yes",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": str(known),
    }
    server = ["/usr/sbin/sshd", "-D", "-e", "-f", str(config)]
    client = ["ssh", "-F", "none", "-N", "-D", f"127.0.0.1:{socks_port}", "-i", str(user)]
    client += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    client += ["-p", str(ssh_port), "127.0.0.1"]
    with log, running(server, log.fileno(), ssh_port), running(client, log.fileno(), socks_port):
        yield socks_port


@contextlib.contextmanager
def running(command: list[str], log: int, port: int) -> Iterator[None]:
    """Run a program, from when it listens on `port`."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 10
        while not is_listening(port):
            if process.poll() is not None or time.monotonic() > deadline:
                output = Path(f"/proc/self/fd/{log}").read_text(errors="replace")
                sys.exit(f"benchmarks/socks.py: {command[0]} does not run:\n{output}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def download(url: str, size: int, socks_port: int | None = None) -> float:
    """Download with curl; give MB/s."""
    proxy = ["--socks5-hostname", f"127.0.0.1:{socks_port}"] if socks_port else []
    command = ["curl", "-sS", *proxy, "-o", "/dev/null", "--max-time", "300"]
    written = ["-w", "%{size_download} %{time_total}", url]
    result = subprocess.run([*command, *written], stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"benchmarks/socks.py: curl failed with {result.returncode}")
    received, seconds = result.stdout.split()
    if int(received) != size:
        sys.exit(f"benchmarks/socks.py: {received} of {size} bytes arrived")
    return size / float(seconds) / 1e6


def main() -> int:
    options = arguments(__doc__ or "").parse_args()
    size, runs = (QUICK_SIZE, QUICK_RUNS) if options.quick else (SIZE, RUNS)
    report = Report(f"one download of {size / 1e6:.0f} MB through SOCKS", as_json=options.json)
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with (
        tempfile.TemporaryDirectory(prefix="socks-", dir=shared) as web,
        tempfile.TemporaryDirectory(prefix="socks-") as folder,
        file_server(Path(web), size) as web_port,
        ssh_proxy(Path(folder)) as ssh_port,
        socks_stack(Path(folder, "home"), far=["--allow", f"127.0.0.1/32:{web_port}"]) as stack,
    ):
        url = f"http://127.0.0.1:{web_port}/"
        report.note(f"# direct, no proxy: {download(url, size):.0f} MB/s")
        ours, peer = [], []
        for number in range(runs + 1):
            mine, theirs = download(url, size, stack.socks_port), download(url, size, ssh_port)
            report.note(f"# {mine:.0f} MB/s, ssh {theirs:.0f} MB/s{'' if number else ' (warm-up)'}")
            if number:
                ours.append(mine)
                peer.append(theirs)
        report.add(rate("socks-1x512", "MB/s", ours, peer, "ssh -D aes128-gcm", AT_LEAST))
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
