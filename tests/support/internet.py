"""What is on the internet of a test: a DNS server, and a place that answers and says who came.

    python -m tests.support.internet names ADDRESS
    python -m tests.support.internet echo ADDRESS PORT

Both print a line when they are ready. `echo` prints, for each datagram, who sent it and what it is, as
`ADDRESS PORT TEXT`, and sends it back; a datagram `to ADDRESS PORT TEXT` it sends there instead, from
another port.
"""

import socket
import sys
import threading

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset

RECORDS = {
    ("public.test.", "A"): ["51.1.1.1"],
    ("public.test.", "AAAA"): ["2a01::1"],
    ("private.test.", "A"): ["10.1.1.1"],
    ("mixed.test.", "A"): ["51.1.1.1", "127.0.0.1"],
    ("large.test.", "TXT"): [f'"{str(number) * 100}"' for number in range(10, 28)],
}


def answer(wire: bytes, most: int) -> bytes:
    asked = dns.message.from_wire(wire)
    said = dns.message.make_response(asked)
    name, kind = asked.question[0].name, dns.rdatatype.to_text(asked.question[0].rdtype)
    found = RECORDS.get((name.to_text().lower(), kind))
    if found:
        said.answer = [dns.rrset.from_text(name, 60, "IN", kind, *found)]
    elif not any(known == name.to_text().lower() for known, _ in RECORDS):
        said.set_rcode(dns.rcode.NXDOMAIN)
    try:
        return said.to_wire(max_size=most)
    except dns.exception.TooBig:
        said.answer = []
        said.flags |= dns.flags.TC
        return said.to_wire()


def names(address: str, port: int = 53) -> None:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, port))
    tcp = socket.create_server((address, port))
    threading.Thread(target=_over_tcp, args=(tcp,), daemon=True).start()
    print("ready", flush=True)
    while True:
        wire, sender = udp.recvfrom(4096)
        udp.sendto(answer(wire, 1232), sender)


def _over_tcp(listener: socket.socket) -> None:
    while True:
        client, _ = listener.accept()
        with client, client.makefile("rb") as reader:
            size = int.from_bytes(reader.read(2), "big")
            said = answer(reader.read(size), 65535)
            client.sendall(len(said).to_bytes(2, "big") + said)


def echo(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    here, elsewhere = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
    here.bind((address, port))
    print("ready", flush=True)
    while True:
        data, sender = here.recvfrom(4096)
        print(sender[0], sender[1], data.decode(), flush=True)
        words = data.decode().split(" ", 3)
        if words[0] == "to":
            elsewhere.sendto(words[3].encode(), (words[1], int(words[2])))
        else:
            here.sendto(data, sender)


if __name__ == "__main__":
    if sys.argv[1] == "names":
        names(sys.argv[2])
    else:
        echo(sys.argv[2], int(sys.argv[3]))
