"""DNS messages of the exit's resolver: the question it asks, and what an answer to it says.

What comes is hostile: it is read only as far as it answers the question, and never raises.
"""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from apps.egress import replies
from apps.egress.hostnames import Address, address_of

PAYLOAD: Final = 1232  # bytes of an answer over UDP that are not fragmented (DNS flag day 2020)
MAX_ADDRESSES: Final = 16  # of one answer; who has more has enough

Family = Literal["A", "AAAA"]


@dataclass(frozen=True)
class Outcome:
    """How a question was answered: addresses, or why there are none."""

    addresses: tuple[Address, ...]
    reason: str = ""
    silent: bool = False  # no server answered in time: not the name's fault


class Answer(NamedTuple):
    """Final, and good for `ttl` seconds."""

    outcome: Outcome
    ttl: float


class Truncated(NamedTuple):
    """Ask the same server over TCP."""


class Useless(NamedTuple):
    """The server cannot or will not tell; another may. `plain`: ask it again without EDNS."""

    reason: str
    plain: bool = False


Verdict = Answer | Truncated | Useless


def question(name: str, family: Family, number: int, *, edns: bool) -> dns.message.QueryMessage:
    """A recursive question with this message id, for a name that `read_host` let through."""
    asked = dns.message.make_query(name + ".", family, id=number)
    asked.flags |= dns.flags.RD
    asked.use_edns(0 if edns else False, payload=PAYLOAD)
    return asked


def read(data: bytes, asked: dns.message.QueryMessage) -> Verdict | None:
    """What a message says to the question; None when it is no answer to it."""
    try:
        message = replies.read(data, asked)
        return None if message is None else _verdict(message, asked)
    except replies.Unusable as error:
        return Useless(str(error))
    except replies.UNREADABLE:  # a chain that leads nowhere
        return Useless("an answer that cannot be read")


def _verdict(message: dns.message.QueryMessage, asked: dns.message.QueryMessage) -> Verdict:
    if message.flags & dns.flags.TC:
        return Truncated()
    code = message.rcode()
    if code not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
        unknown = code in {dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS}
        return Useless(dns.rcode.to_text(code), plain=unknown and asked.edns >= 0)
    chain = message.resolve_chaining()
    if chain.answer is None:
        if not message.flags & (dns.flags.RA | dns.flags.AA):
            return Useless("this server does not ask others")
        reason = "no such name" if code == dns.rcode.NXDOMAIN else "no address"
        return Answer(Outcome((), reason), float(chain.minimum_ttl))
    addresses = tuple(_addresses(chain.answer, asked))
    return Answer(Outcome(addresses, "" if addresses else "no address"), float(chain.minimum_ttl))


def _addresses(answer: dns.rrset.RRset, asked: dns.message.QueryMessage) -> list[Address]:
    wanted = asked.question[0].rdtype
    version = 4 if wanted == dns.rdatatype.A else 6
    found = [address_of(each.address) for each in list(answer)[:MAX_ADDRESSES]]
    return [address for address in found if address.version == version]
