"""A SOCKS5 client that sends exactly what it is told to: blocking sockets, nothing of the project."""

import socket
from ipaddress import ip_address

GREETING = b"\5\1\0"


def request(host: str, port: int, command: int = 1) -> bytes:
    """Encode a request: an address as such, anything else as a name."""
    try:
        address = ip_address(host)
    except ValueError:
        place = bytes((3, len(host))) + host.encode()
    else:
        place = bytes((1 if address.version == 4 else 4,)) + address.packed
    return bytes((5, command, 0)) + place + port.to_bytes(2)


def connect(socks_port: int, timeout: float = 20) -> socket.socket:
    return socket.create_connection(("127.0.0.1", socks_port), timeout)


def receive(sock: socket.socket, size: int) -> bytes:
    """Receive exactly so many bytes, or what came before the end."""
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def receive_all(sock: socket.socket) -> bytes:
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


def ask(sock: socket.socket, host: str, port: int) -> int:
    """Do the whole handshake without a password; give the reply's code."""
    sock.sendall(GREETING)
    assert receive(sock, 2) == b"\5\0"
    sock.sendall(request(host, port))
    answer = receive(sock, 10)
    assert len(answer) == 10
    assert answer[0] == 5
    return answer[1]
