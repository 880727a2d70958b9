"""Packets: our answers as another implementation (dnslib) reads them, and whatever may come as a question."""

from __future__ import annotations

import random

import pytest
from dnslib import EDNS0, QTYPE, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from swarm_agent.dns import wire
from swarm_agent.dns.answers import View
from swarm_agent.dns.server import Desk
from swarm_agent.dns.wire import Answer, Malformed, aged, lifetimes, read_question
from swarm_agent.dns.zones import Directory, build
from swarm_agent.model.rows import PortRow
from tests.unit.dns.tables import NETWORKS, row

HTTP = (PortRow("tcp", 8080, 80, "ingress", "http"),)
ROWS = [
    *(row("web", slot, f"10.0.1.{10 + slot}", vip="10.0.1.5", ports=HTTP) for slot in (1, 2)),
    *(row("many", slot, f"10.0.1.{100 + slot}") for slot in range(1, 101)),
]
VIEW = View(build(NETWORKS, [("node1", one) for one in ROWS], Directory()).visible("n1", ""))


def ask(name: str, qtype: str = "A", *, transport: int = 0, edns: int | None = None, seed: int = 0) -> DNSRecord | None:
    """The answer as dnslib reads it, or None when resolvers outside would be asked."""
    question = DNSRecord.question(name, qtype)
    if edns is not None:
        question.add_ar(EDNS0(udp_len=edns))
    data = bytes(question.pack())
    answer = Desk(VIEW, forwarder=object()).answer(data, transport)
    if not isinstance(answer, Answer):
        return None
    packet = answer.packet(data[:2], random.Random(seed))
    read = DNSRecord.parse(packet)
    assert read.header.id == question.header.id and read.header.qr == 1 and read.header.ra == 1
    assert str(read.q.qname).rstrip(".") == name.rstrip(".") and QTYPE[read.q.qtype] == qtype
    limit = 65535 if transport else max(512, min(edns or 512, 1232))
    assert len(packet) <= limit
    return read


def data_of(answer: DNSRecord) -> list[str]:
    return [str(record.rdata) for record in answer.rr]


def test_an_address_is_answered_with_authority_and_a_short_life():
    answer = ask("web")
    assert data_of(answer) == ["10.0.1.5"] and answer.header.aa and answer.header.rd
    assert 0 < answer.rr[0].ttl <= 5


def test_letters_keep_their_case_in_the_answer():
    assert data_of(ask("WeB.nEt1")) == ["10.0.1.5"]


def test_ipv6_of_an_ipv4_name_is_no_data_not_no_name():
    answer = ask("web", "AAAA")
    assert answer.header.rcode == 0 and not answer.rr and QTYPE[answer.auth[0].rtype] == "SOA"
    assert ask("web", "MX").header.rcode == 0


def test_a_denied_name_may_be_remembered_for_a_moment_only():
    answer = ask("77.1.0.10.in-addr.arpa", "PTR")
    assert answer.header.rcode == 3 and answer.auth[0].ttl <= 1


def test_an_unknown_name_is_left_to_others():
    assert ask("example.com") is None


def test_pointer_and_service_records():
    assert data_of(ask("11.1.0.10.in-addr.arpa", "PTR")) == ["web.1.webtask1.net1."]
    answer = ask("_http._tcp.web", "SRV")
    assert data_of(answer) == ["0 1 8080 web.net1."]
    assert [(str(record.rname), str(record.rdata)) for record in answer.ar] == [("web.net1.", "10.0.1.5")]


def test_tasks_come_in_another_order_each_time():
    orders = {tuple(data_of(ask("tasks.web", seed=seed))) for seed in range(20)}
    assert orders == {("10.0.1.11", "10.0.1.12"), ("10.0.1.12", "10.0.1.11")}


@pytest.mark.parametrize(("edns", "count"), [(None, 30), (1232, 74), (65000, 74)])
def test_what_does_not_fit_is_cut_and_says_so(edns, count):
    first, second = (ask("many", edns=edns, seed=seed) for seed in (1, 2))
    assert first.header.tc and len(first.rr) == count
    assert set(data_of(first)) != set(data_of(second))  # each asker gets a part of its own
    whole = ask("many", transport=1)
    assert not whole.header.tc and len(whole.rr) == 100


def test_edns_is_answered_with_edns_and_its_absence_with_none():
    assert QTYPE[ask("web", edns=4096).ar[0].rtype] == "OPT"
    assert not ask("web").ar


def test_records_of_different_size_never_exceed_the_limit():
    for limit in range(60, 400, 7):
        question = read_question(DNSRecord.question("x.y").pack())
        records = [wire.record(wire.PTR, 1, wire.name_bytes("n" * size + ".net")) for size in (3, 40, 9, 60, 20)]
        for seed in range(5):
            packet = wire.make_answer(question, limit, answers=records).packet(b"ab", random.Random(seed))
            assert len(packet) <= limit
            DNSRecord.parse(packet)


def test_other_classes_operations_and_versions_are_turned_down():
    plain = bytearray(DNSRecord.question("web").pack())
    chaos, notify, version = bytearray(plain), bytearray(plain), bytearray(plain)
    chaos[-1] = 3
    notify[2] = 4 << 3
    version[11] = 1
    version += b"\0\0\x29\x04\xd0\0\x01\0\0\0\0"
    rcodes = []
    for data in (chaos, notify, version):
        packet = Desk(VIEW).answer(bytes(data), 0).packet(bytes(data[:2]), random.Random(0))
        rcodes.append(packet[3] & 15)
    assert rcodes == [wire.REFUSED, wire.NOTIMP, 0]  # the third's is in its EDNS part
    assert packet[-6] == 1  # the upper bits of BADVERS, 16


def test_an_answer_is_never_answered():
    data = bytearray(DNSRecord.question("web").pack())
    data[2] |= 0x80
    assert Desk(VIEW).answer(bytes(data), 0) is None
    with pytest.raises(Malformed):
        read_question(b"short")


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_get_an_answer_or_silence(data, plausible):
    if plausible and len(data) >= 6:
        data = data[:2] + b"\x01\0\0\x01\0\0\0\0\0\0" + data[2:]
    answer = Desk(VIEW).answer(data, 0)
    if answer is not None:
        packet = answer.packet(data[:2], random.Random(0))
        assert len(packet) <= 1232 and packet[2] & 0x80


@given(st.binary(max_size=120))
def test_any_bytes_as_anothers_answer_are_read_or_refused(data):
    try:
        assert all(place + 4 <= len(data) for place in lifetimes(data))
    except Malformed:
        pass


def test_a_kept_answer_grows_old():
    question = read_question(DNSRecord.question("x.y").pack())
    records = [wire.record(wire.A, ttl, bytes(4)) for ttl in (100, 5)]
    packet = wire.make_answer(question, 512, answers=records[:1], authority=records[1:]).packet(b"ab", random.Random(0))
    read = DNSRecord.parse(aged(packet, lifetimes(packet), 7))
    assert (read.rr[0].ttl, read.auth[0].ttl) == (93, 0)
