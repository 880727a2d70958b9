"""Asking others: resolvers that answer, refuse, are silent or are not there."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from dnslib import DNSRecord

from swarm_agent.dns import forward
from swarm_agent.dns.forward import Forwarder
from swarm_agent.dns.resolvconf import HostResolvers, nameservers
from swarm_agent.dns.wire import NXDOMAIN, REFUSED, SERVFAIL, read_question
from tests.unit.dns.sockets import Resolver, saying, silent

FIRST, SECOND, NOBODY = "127.0.54.1", "127.0.54.2", "127.0.54.3"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def outside(monkeypatch):
    """outside(first reply, second reply) → (forwarder, its clock, the two resolvers)."""
    monkeypatch.setattr(forward, "DEADLINE", 0.6)
    monkeypatch.setattr(forward, "SHORT_DEADLINE", 0.2)
    monkeypatch.setattr(forward, "FAILOVER", 0.1)
    async with contextlib.AsyncExitStack() as stack:

        async def make(*replies, servers=None):
            resolvers, port, clock = [], 0, Clock()
            for address, reply in zip((FIRST, SECOND), replies, strict=False):
                resolver = Resolver(reply)
                port = await resolver.start(address, port)
                stack.callback(resolver.stop)
                resolvers.append(resolver)
            chosen = servers if servers is not None else [FIRST, SECOND][: len(replies)]
            forwarder = Forwarder(lambda: chosen, rng=random.Random(1), port=port or 1, clock=clock)
            stack.push_async_callback(forwarder.close)
            return forwarder, clock, resolvers

        yield make


async def asked(forwarder: Forwarder, name: str = "example.com", *, stream: bool = False, message_id: int = 7):
    """Addresses of the answer, or the rcode."""
    question = DNSRecord.question(name)
    question.header.id = message_id
    data = bytes(question.pack())
    found = await forwarder.ask(data, read_question(data), stream=stream)
    if isinstance(found, int):
        return found
    answer = DNSRecord.parse(found)
    assert answer.header.id == message_id
    return [str(record.rdata) for record in answer.rr] or answer.header.rcode


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_resolver_answers_and_the_second_is_left_alone(outside, stream):
    forwarder, _, (first, second) = await outside(saying("192.0.2.1"), saying("192.0.2.2"))
    assert await asked(forwarder, stream=stream) == ["192.0.2.1"]
    assert len(first.heard) == 1 and not second.heard


@pytest.mark.parametrize("stream", [False, True])
async def test_one_that_is_silent_or_absent_or_fails_costs_little(outside, stream):
    for first in (silent, saying("192.0.2.1", rcode=SERVFAIL), saying("192.0.2.1", rcode=REFUSED)):
        forwarder, _, resolvers = await outside(first, saying("192.0.2.2"))
        assert await asked(forwarder, stream=stream) == ["192.0.2.2"]
        for resolver in resolvers:
            resolver.stop()
    forwarder, _, _ = await outside(saying("192.0.2.1"), servers=[NOBODY, FIRST])
    assert await asked(forwarder, stream=stream) == ["192.0.2.1"]


async def test_a_name_that_does_not_exist_is_an_answer(outside):
    forwarder, _, (_, second) = await outside(saying("", rcode=NXDOMAIN), saying("192.0.2.2"))
    assert await asked(forwarder) == NXDOMAIN
    assert not second.heard


async def test_without_anybody_to_ask_the_answer_comes_at_once(outside):
    forwarder, _, _ = await outside(servers=[])
    assert await asked(forwarder) == NXDOMAIN
    forwarder, _, _ = await outside(servers=[NOBODY])
    assert await asked(forwarder) == SERVFAIL


async def test_when_all_are_silent_the_asker_hears_of_it_and_the_next_waits_less(outside):
    forwarder, clock, resolvers = await outside(silent, silent)
    loop = asyncio.get_running_loop()
    for number in range(forward.SUSPECT):
        assert await asked(forwarder, f"n{number}.example") == SERVFAIL
    began = loop.time()
    assert await asked(forwarder, "late.example") == SERVFAIL
    assert loop.time() - began < forward.DEADLINE  # an order of time-outs, not a speed
    for resolver in resolvers:
        resolver.reply = saying("192.0.2.9")
    assert await asked(forwarder, "back.example") == ["192.0.2.9"]
    assert clock.now == 1000.0


async def test_a_silent_resolver_is_asked_last_for_a_while(outside):
    forwarder, clock, (first, _second) = await outside(silent, saying("192.0.2.2"))
    for number in range(forward.SUSPECT):
        await asked(forwarder, f"n{number}.example")
    heard = len(first.heard)
    assert await asked(forwarder, "x.example") == ["192.0.2.2"]
    assert len(first.heard) == heard
    clock.now += forward.REST + 1
    await asked(forwarder, "y.example")
    assert len(first.heard) == heard + 1


async def test_an_answer_is_kept_and_grows_old(outside):
    forwarder, clock, (first,) = await outside(saying("192.0.2.1", ttl=30))
    await asked(forwarder)
    clock.now += 20
    data = bytes(DNSRecord.question("example.com").pack())
    assert DNSRecord.parse(forwarder.kept(data, stream=False)).rr[0].ttl == 10
    assert await asked(forwarder, message_id=8) == ["192.0.2.1"]
    assert len(first.heard) == 1
    clock.now += 11
    await asked(forwarder)
    assert len(first.heard) == 2


async def test_failures_are_not_kept(outside):
    forwarder, _, (first,) = await outside(saying("", rcode=SERVFAIL))
    await asked(forwarder)
    await asked(forwarder)
    assert len(first.heard) == 2


async def test_many_who_ask_the_same_are_one_question_and_one_leaving_disturbs_none(outside):
    gate = asyncio.Event()
    forwarder, _, (first,) = await outside(silent)

    async def answer_later() -> None:
        await gate.wait()
        first.datagram_received(first.heard[0], first_asker)

    first_asker = None
    original = first.datagram_received

    def remember(data, addr):
        nonlocal first_asker
        first_asker = addr
        original(data, addr)
        first.reply = saying("192.0.2.1")
        gate.set()

    first.datagram_received = remember
    later = asyncio.create_task(answer_later())
    tasks = [asyncio.create_task(asked(forwarder, message_id=number)) for number in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert await asyncio.gather(*tasks[1:]) == [["192.0.2.1"]] * 4
    later.cancel()
    assert tasks[0].cancelled()


async def test_strays_and_forgeries_are_passed_over(outside):
    def forged(data: bytes) -> bytes:
        wrong_id = bytes([data[0] ^ 1]) + data[1:]
        return saying("192.0.2.66")(wrong_id)

    def other_name(data: bytes) -> bytes:
        other = DNSRecord.question("other.example")
        other.header.id = int.from_bytes(data[:2], "big")
        return saying("192.0.2.66")(bytes(other.pack()))

    for wrong in (forged, other_name):
        forwarder, _, resolvers = await outside(wrong, saying("192.0.2.2"))
        assert await asked(forwarder) == ["192.0.2.2"]
        for resolver in resolvers:
            resolver.stop()


def test_resolv_conf_is_read_as_it_is_now_and_never_names_ourselves(tmp_path):
    path, clock = tmp_path / "resolv.conf", Clock()
    resolvers = HostResolvers(lambda: {"10.0.1.2"}, path, clock)
    assert resolvers() == []
    path.write_text("# by hand\nsearch lan\nnameserver 10.0.1.2\nnameserver 192.0.2.1 \nnameserver oops\n")
    clock.now += 2
    assert resolvers() == ["192.0.2.1"]
    path.write_text("nameserver 192.0.2.7\nnameserver fe80::1%eth0\nnameserver 192.0.2.7\n")
    clock.now += 2
    assert resolvers() == ["192.0.2.7", "fe80::1%eth0"]
    path.unlink()
    clock.now += 2
    assert resolvers() == []
    assert nameservers("nameserver\n; nameserver 1.1.1.1\n") == []
