"""DNS as the exit's resolver sees it: which questions it passes on, and what it makes of the answers.

Pure. What the exit does not let its clients reach it does not tell them about either: an answer with an
address that is not public is not passed on (a name of somebody else's that leads into a private
network is an attack, DNS rebinding), nor is a question about what such an address is called.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

from apps.egress.dnscache import FAILURE, life
from apps.egress.rules import ALL_PORTS, DENIED, Address, Rule

PORT: Final = 53
MIN_PAYLOAD: Final = 512  # bytes, RFC 1035
MAX_PAYLOAD: Final = 1232  # bytes that pass over any way in one piece
MAX_TCP: Final = 65_535
# Of a question: none is longer, and the time to read one that is full of records grows with its square.
MAX_QUESTION: Final = 2048  # bytes

# Names that mean something else on every machine or network (RFC 6761, 6762, 8375), so nothing here.
_LOCAL: Final = tuple(
    dns.name.from_text(text) for text in ("localhost", "local", "internal", "home.arpa", "onion")
)
# A whole zone, or all there is about a name: for servers among themselves, and good for amplification.
_REFUSED_TYPES: Final = frozenset(
    {dns.rdatatype.ANY, dns.rdatatype.AXFR, dns.rdatatype.IXFR, dns.rdatatype.MAILA}
)


@dataclass(frozen=True)
class Terms:
    """What the exit's policy means for names."""

    allow: tuple[Rule, ...] = ()  # of networks: they may be reached, so they may be told of
    deny: tuple[Rule, ...] = ()  # of names or networks

    def hidden(self, address: Address) -> bool:
        """Whether no client can reach this address on any port."""
        if any(_of(rule, address) for rule in self.allow):
            return False
        denied = any(address.version == net.version and address in net for net in DENIED)
        return denied or any(_of(rule, address) and rule.ports == ALL_PORTS for rule in self.deny)

    def denied(self, name: str) -> bool:
        meant = (rule for rule in self.deny if not rule.everywhere or rule.ports == ALL_PORTS)
        return any(rule.covers_name(name, rule.ports[0]) for rule in meant)


class NotAnswered(Exception):
    """What came is no question: nothing is said to it."""


@dataclass(frozen=True)
class Question:
    """What is asked for; equal ones have the same answer."""

    name: dns.name.Name
    kind: dns.rdatatype.RdataType
    checked: bool  # signatures are wanted
    unchecked: bool  # the resolver shall not check them

    def query(self) -> dns.message.QueryMessage:
        """The question as it is passed on, with a random id."""
        query = dns.message.make_query(
            self.name, self.kind, use_edns=0, payload=MAX_PAYLOAD, want_dnssec=self.checked
        )
        if self.unchecked:
            query.flags |= dns.flags.CD
        return query


@dataclass(frozen=True)
class Asked:
    """A client's message."""

    message: dns.message.Message
    question: Question | None  # None: `refusal` is all there is to say
    refusal: dns.rcode.Rcode = dns.rcode.NOERROR

    @property
    def room(self) -> int:
        """Bytes of a datagram that the client takes."""
        return max(MIN_PAYLOAD, min(self.message.payload, MAX_PAYLOAD))


def read(wire: bytes, terms: Terms) -> Asked:
    """Take a client's message apart; raises NotAnswered."""
    if len(wire) > MAX_QUESTION:
        raise NotAnswered(f"a question of {len(wire)} bytes")
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, IndexError) as error:
        raise NotAnswered(str(error)) from None
    if message.flags & dns.flags.QR:
        raise NotAnswered("an answer")
    if message.opcode() != dns.opcode.QUERY:
        return Asked(message, None, dns.rcode.NOTIMP)
    if len(message.question) != 1:
        return Asked(message, None, dns.rcode.FORMERR)
    asked = message.question[0]
    if asked.rdclass != dns.rdataclass.IN or asked.rdtype in _REFUSED_TYPES:
        return Asked(message, None, dns.rcode.REFUSED)
    if _local(asked.name, terms):
        return Asked(message, None, dns.rcode.NXDOMAIN)
    if terms.denied(asked.name.to_text(omit_final_dot=True).lower()):
        return Asked(message, None, dns.rcode.REFUSED)
    checked = bool(message.ednsflags & dns.flags.DO)
    unchecked = bool(message.flags & dns.flags.CD)
    return Asked(message, Question(asked.name, asked.rdtype, checked, unchecked))


def refused(asked: Asked, code: dns.rcode.Rcode | None = None) -> bytes:
    """An answer that is only a code: that of `asked`, or another."""
    response = _response(asked)
    response.set_rcode(asked.refusal if code is None else code)
    return bytes(response.to_wire())


def answer(asked: Asked, found: dns.message.Message, age: float, room: int, terms: Terms) -> bytes:
    """The answer to a client, of at most `room` bytes; `age` seconds have passed since it was found."""
    response = _response(asked)
    if hidden := private_address(found, terms):
        if response.edns >= 0:
            told = dns.edns.EDEOption(dns.edns.EDECode.FILTERED, f"{hidden} is not public")
            response.use_edns(0, payload=MAX_PAYLOAD, options=[told])
        response.set_rcode(dns.rcode.REFUSED)
        return bytes(response.to_wire())
    response.set_rcode(found.rcode())
    response.flags |= found.flags & dns.flags.AD
    response.answer = [_aged(rrset, age) for rrset in found.answer]
    response.authority = [_aged(rrset, age) for rrset in found.authority]
    try:
        return bytes(response.to_wire(max_size=room))
    except dns.exception.TooBig:
        response.answer, response.authority = [], []
        response.flags |= dns.flags.TC  # it asks again, over TCP
        return bytes(response.to_wire())


def lifetime(found: dns.message.QueryMessage) -> float:
    """Seconds that an answer may be given again; 0 if it does not say."""
    if found.rcode() not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
        return FAILURE
    try:
        chain = found.resolve_chaining()
    except (
        dns.exception.DNSException
    ):  # aliases in a circle, addresses of a name that does not exist
        return 0.0
    negative = chain.answer is None
    if negative and not any(_is_above(rrset, chain.canonical_name) for rrset in found.authority):
        return 0.0  # who says no without an SOA is not to be remembered (RFC 2308, 5)
    # The whole answer is passed on, also what is not of the chain.
    ttl = min([chain.minimum_ttl, *(rrset.ttl for rrset in found.answer)])
    return life(float(ttl), positive=not negative)


def private_address(found: dns.message.Message, terms: Terms) -> str:
    """An address in the answer that clients may not reach, or nothing."""
    for rrset in found.answer:
        # Of another class it is no address, whatever the type is called; nobody asks for it.
        internet = rrset.rdclass == dns.rdataclass.IN
        if internet and rrset.rdtype in {dns.rdatatype.A, dns.rdatatype.AAAA}:
            for record in rrset:
                if terms.hidden(ip_address(record.address)):
                    return str(record.address)
    return ""


def _local(name: dns.name.Name, terms: Terms) -> bool:
    if any(name.is_subdomain(zone) for zone in _LOCAL):
        return True
    try:
        return terms.hidden(ip_address(dns.reversename.to_address(name)))
    except (dns.exception.DNSException, ValueError):
        return False


def _of(rule: Rule, address: Address) -> bool:
    network = rule.network
    return network is not None and network.version == address.version and address in network


def _is_above(rrset: dns.rrset.RRset, name: dns.name.Name) -> bool:
    """The SOA of a zone that the name is in."""
    return rrset.rdtype == dns.rdatatype.SOA and name.is_subdomain(rrset.name)


def _response(asked: Asked) -> dns.message.Message:
    response = dns.message.make_response(
        asked.message, recursion_available=True, our_payload=MAX_PAYLOAD
    )
    response.flags &= ~dns.flags.AA
    return response


def _aged(rrset: dns.rrset.RRset, age: float) -> dns.rrset.RRset:
    return dns.rrset.from_rdata_list(rrset.name, max(0, int(rrset.ttl - age)), list(rrset))
