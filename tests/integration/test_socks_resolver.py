"""The exit's resolver against a name server that does as it is told."""

import asyncio
import socket
from pathlib import Path
from unittest import mock

import dns.flags
import dns.message
import dns.rcode
import pytest

from apps.egress import upstream, watched
from apps.egress.upstream import Server
from apps.socks import resolver as module
from apps.socks.answers import Outcome
from apps.socks.resolver import Resolver
from tests.support.nameserver import nameserver

ZONE = {
    "a.test": ["300 A 192.0.2.1", "300 A 192.0.2.2", "300 AAAA 2001:db8::1"],
    "short.test": ["0 A 192.0.2.3"],
    "big.test": [f"300 A 10.0.0.{number}" for number in range(200)],
    "huge.test": [f"300 A 10.0.{number // 256}.{number % 256}" for number in range(4000)],
}


def texts(outcome: Outcome) -> list[str]:
    return sorted(str(address) for address in outcome.addresses)


NOBODY: Server = ("127.0.0.1", 1)  # nobody listens on a port so low


def truncate(question: dns.message.Message) -> list[bytes]:
    """Answers that the rest is to be had over TCP."""
    reply = dns.message.make_response(question, recursion_available=True)
    reply.flags |= dns.flags.TC
    return [reply.to_wire()]


@pytest.fixture
def hasty():
    """Servers get less time, for tests in which one is silent."""
    with mock.patch.object(module, "PATIENCE", (0.2, 5.0)):
        yield


async def test_both_families_of_a_name():
    async with nameserver(ZONE) as server:
        resolver = Resolver([server.place])
        assert texts(await resolver.ask("a.test", "A")) == ["192.0.2.1", "192.0.2.2"]
        assert texts(await resolver.ask("a.test", "AAAA")) == ["2001:db8::1"]


async def test_what_was_answered_is_not_asked_again_be_it_good_or_bad():
    async with nameserver(ZONE) as server:
        resolver = Resolver([server.place])
        for _ in range(3):
            await resolver.ask("a.test", "A")
            assert (await resolver.ask("no.test", "A")).reason == "no such name"
            assert (await resolver.ask("short.test", "AAAA")).reason == "no address"
        assert server.asked == ["a.test A", "no.test A", "short.test AAAA"]


async def test_an_answer_that_is_good_for_no_time_is_asked_for_again():
    async with nameserver(ZONE) as server:
        resolver = Resolver([server.place])
        for _ in range(2):
            assert texts(await resolver.ask("short.test", "A")) == ["192.0.2.3"]
        assert server.asked == ["short.test A"] * 2


async def test_many_who_ask_for_one_name_at_once_make_one_question():
    async with nameserver(ZONE) as server:
        resolver = Resolver([server.place])
        found = await asyncio.gather(*(resolver.ask("short.test", "A") for _ in range(50)))
        assert {texts(outcome)[0] for outcome in found} == {"192.0.2.3"}
        assert server.asked == ["short.test A"]


async def test_who_gives_up_takes_the_answer_from_nobody():
    held: list[dns.message.Message] = []

    def hold(question: dns.message.Message) -> list[bytes]:
        held.append(question)
        return []

    async with nameserver(ZONE, hold) as server:
        resolver = Resolver([server.place])
        hasty, patient = (asyncio.create_task(resolver.ask("a.test", "A")) for _ in range(2))
        while not held:
            await asyncio.sleep(0.01)
        hasty.cancel()
        server.script = None
        assert texts(await patient) == ["192.0.2.1", "192.0.2.2"]


async def test_an_answer_that_is_too_long_for_a_datagram_comes_over_tcp():
    async with nameserver(ZONE, truncate) as server:
        outcome = await Resolver([server.place]).ask("big.test", "A")
        assert len(outcome.addresses) == 16
        assert server.asked == ["big.test A"] * 2


async def test_an_answer_so_long_that_it_would_take_long_to_read_is_not_read():
    async with nameserver(ZONE, truncate) as server:
        outcome = await Resolver([server.place]).ask("huge.test", "A")
        assert outcome.reason == "the resolver said: an answer that is too large"


async def test_a_server_that_cuts_its_tcp_connection_or_truncates_there_is_useless():
    for over_tcp in (truncate, lambda _: []):
        async with nameserver(ZONE, truncate) as server:
            server.over_tcp = over_tcp
            outcome = await Resolver([server.place]).ask("a.test", "A")
            assert (outcome.addresses, outcome.silent) == ((), False)


async def test_a_server_that_is_not_there_costs_nothing():
    async with nameserver(ZONE) as server:
        resolver = Resolver([NOBODY, server.place])
        assert texts(await resolver.ask("a.test", "AAAA")) == ["2001:db8::1"]


async def test_a_silent_server_is_passed_over_and_the_other_asked_first_from_then_on(hasty: None):
    async with nameserver(ZONE, lambda _: []) as silent, nameserver(ZONE) as server:
        resolver = Resolver([silent.place, server.place])
        assert texts(await resolver.ask("a.test", "A")) == ["192.0.2.1", "192.0.2.2"]
        assert texts(await resolver.ask("a.test", "AAAA")) == ["2001:db8::1"]
        assert len(silent.asked) == 1


async def test_a_lost_answer_is_asked_for_again(hasty: None):
    def lose(question: dns.message.Message) -> list[bytes]:
        server.script = None
        return []

    async with nameserver(ZONE, lose) as server:
        resolver = Resolver([server.place])
        assert texts(await resolver.ask("a.test", "A")) == ["192.0.2.1", "192.0.2.2"]


async def test_when_nobody_answers_it_is_told_and_not_asked_again_at_once():
    with mock.patch.object(module, "PATIENCE", (0.05, 0.05)):
        async with nameserver(ZONE, lambda _: []) as server:
            resolver = Resolver([server.place])
            for _ in range(2):
                outcome = await resolver.ask("a.test", "A")
                assert (outcome.reason, outcome.silent) == ("no resolver answers", True)
            assert len(server.asked) == 2


@pytest.mark.parametrize("code", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
async def test_a_server_that_fails_is_followed_by_the_next(code: dns.rcode.Rcode):
    def fail(question: dns.message.Message) -> list[bytes]:
        reply = dns.message.make_response(question, recursion_available=True)
        reply.set_rcode(code)
        return [reply.to_wire()]

    async with nameserver(ZONE, fail) as failing, nameserver(ZONE) as server:
        assert texts(await Resolver([failing.place, server.place]).ask("a.test", "AAAA"))
        outcome = await Resolver([failing.place]).ask("a.test", "A")
        assert outcome.reason == f"the resolver said: {dns.rcode.to_text(code)}"


async def test_a_server_that_knows_no_edns_is_asked_without():
    def old(question: dns.message.Message) -> list[bytes]:
        if question.edns < 0:
            return [server.answer(question)]
        reply = dns.message.make_response(question)
        reply.set_rcode(dns.rcode.FORMERR)
        return [reply.to_wire()]

    async with nameserver(ZONE, old) as server:
        assert texts(await Resolver([server.place]).ask("a.test", "AAAA")) == ["2001:db8::1"]


async def test_what_answers_other_questions_is_passed_over():
    def confused(question: dns.message.Message) -> list[bytes]:
        other = dns.message.make_query("b.test", "A", id=question.id)
        wrong_id = dns.message.make_query("a.test", "A", id=question.id ^ 1)
        strays = [b"", b"x", b"\0" * 12, server.answer(other), server.answer(wrong_id)]
        return [*strays, question.to_wire(), server.answer(question)]

    async with nameserver({**ZONE, "b.test": ["9 A 127.0.0.1"]}, confused) as server:
        resolver = Resolver([server.place])
        assert texts(await resolver.ask("a.test", "A")) == ["192.0.2.1", "192.0.2.2"]


async def test_a_server_that_floods_is_given_up():
    async with nameserver(ZONE, lambda _: [b"stray"] * 100) as server:
        outcome = await Resolver([server.place]).ask("a.test", "A")
        assert outcome.reason == "the resolver said: answers to other questions"


async def test_what_cannot_be_read_is_followed_by_the_next():
    def nonsense(question: dns.message.Message) -> list[bytes]:
        return [question.id.to_bytes(2) + b"\x81\x80" + b"\xff" * 40]

    async with nameserver(ZONE, nonsense) as bad, nameserver(ZONE) as server:
        resolver = Resolver([bad.place, server.place])
        assert texts(await resolver.ask("a.test", "AAAA")) == ["2001:db8::1"]


async def test_questions_at_once_have_a_limit():
    async with nameserver(ZONE, lambda _: []) as server:
        resolver = Resolver([server.place])
        tasks = [
            asyncio.create_task(resolver.ask(f"n{number}.test", "A"))
            for number in range(module.MAX_ASKING)
        ]
        await asyncio.sleep(0)
        outcome = await resolver.ask("a.test", "A")
        assert (outcome.reason, outcome.silent) == ("the exit's resolver is busy", True)
        for task in tasks:
            task.cancel()
        await resolver.aclose()


async def test_the_hosts_file_comes_first_and_is_read_again_when_it_changes(tmp_path: Path):
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.7 box.test\n")
    with mock.patch.object(watched, "LOOK_EVERY", 0):
        resolver = Resolver([NOBODY], hosts=hosts)
        assert str((resolver.known("box.test") or ())[0]) == "192.0.2.7"
        hosts.write_text("192.0.2.77 box.test\n")
        assert str((resolver.known("box.test") or ())[0]) == "192.0.2.77"
        hosts.unlink()
        assert resolver.known("box.test") is None


async def test_a_hosts_file_cannot_point_localhost_elsewhere(tmp_path: Path):
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.7 localhost\n")
    found = Resolver(hosts=hosts).known("localhost") or ()
    assert [str(address) for address in found] == ["127.0.0.1", "::1"]


async def test_the_servers_of_the_system_are_asked_and_its_file_is_watched(tmp_path: Path):
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 192.0.2.53\n")
    asked: list[Server] = []

    async def ask(server: Server, *_: object) -> None:
        asked.append(server)

    with (
        mock.patch.object(module, "_ask_patiently", ask),
        mock.patch.object(watched, "LOOK_EVERY", 0),
    ):
        resolver = Resolver(conf=conf)
        await resolver.ask("a.test", "A")
        conf.write_text("nameserver 2001:db8::53\n")
        await resolver.ask("b.test", "A")
    assert asked == [("192.0.2.53", 53)] * 2 + [("2001:db8::53", 53)] * 2


def test_a_server_on_ipv6_may_have_a_scope():
    index = socket.if_nametoindex("lo")
    assert upstream._place(("fe80::1%lo", 53), socket.AF_INET6) == ("fe80::1", 53, 0, index)
    assert upstream._place(("2001:db8::1", 53), socket.AF_INET6) == ("2001:db8::1", 53, 0, 0)
