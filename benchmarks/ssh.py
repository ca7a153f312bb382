"""OpenSSH with its fastest cipher between two namespaces: its own sshd, throw-away keys, no user settings."""

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.namespaces import Namespaces, socket_in

CIPHER = "aes128-gcm@openssh.com"
PORT = 2222  # of sshd


@contextlib.contextmanager
def ssh_between(
    folder: Path, spaces: Namespaces, near: str, far: str, port: int, forward: Sequence[str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run sshd at `far` and ssh at `near`, which forwards `port` of 127.0.0.1 as `forward` says."""
    host, user = folder / "host", folder / "user"
    for key in (host, user):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(command, check=True)
    address = spaces.address(far)
    with (folder / "ssh.log").open("wb") as log, contextlib.ExitStack() as stack:
        running = []
        for name, at, program in (
            (far, (address, PORT), _server(folder, address)),
            (near, ("127.0.0.1", port), _client(folder, address, forward)),
        ):
            space = spaces.of(name)
            started = subprocess.Popen(
                ["ip", "netns", "exec", space, *program],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            stack.callback(started.wait, 10)
            stack.callback(started.terminate)
            running.append(started)
            if not answers(space, at, started):
                raise RuntimeError(f"{program[0]}: {(folder / 'ssh.log').read_text()}")
        yield running


def answers(space: str, at: tuple[str, int], process: subprocess.Popen[bytes]) -> bool:
    """Wait until the process listens; False when it ended, or does not within ten seconds."""
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        with socket_in(space) as probe:
            if probe.connect_ex(at) == 0:
                return True
        time.sleep(0.05)
    return False


def _server(folder: Path, address: str) -> list[str]:
    host, authorized, config = folder / "host", folder / "authorized", folder / "sshd_config"
    authorized.write_text((folder / "user.pub").read_text())
    config.write_text(
        f"ListenAddress {address}\nPort {PORT}\nHostKey {host}\nPidFile none\n"
        f"AuthorizedKeysFile {authorized}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nCiphers {CIPHER}\n"
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd locks itself in
    return ["/usr/sbin/sshd", "-D", "-e", "-f", str(config)]


def _client(folder: Path, address: str, forward: Sequence[str]) -> list[str]:
    known = folder / "known"
    known.write_text(f"[{address}]:{PORT} {(folder / 'host.pub').read_text()}")
    options = {
        "BatchMode": "yes",
        "Ciphers": CIPHER,
        "Compression": "no",
        "ExitOnForwardFailure": "yes",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": str(known),
    }
    client = ["ssh", "-F", "none", "-N", *forward]
    client += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return [*client, "-i", str(folder / "user"), "-p", str(PORT), address]
