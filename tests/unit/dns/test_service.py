"""The server on real sockets of loopback: two networks in 127/8, so that source addresses decide as on a host."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable

import pytest

from swarm_agent.dns.service import DnsService
from swarm_agent.model.objects import Network
from swarm_agent.model.rows import AddressRow, EndpointRow
from swarm_agent.model.specs import IPAMConfig, IPAMOptions, NetworkSpec
from tests.unit.dns.sockets import Resolver, ask, ask_stream, saying

OWN = {"n1": "127.71.1.2/24", "n2": "127.71.2.2/24"}


def network(number: int) -> Network:
    configs = [IPAMConfig(subnet=f"127.71.{number}.0/24")]
    return Network(id=f"n{number}", spec=NetworkSpec(name=f"net{number}"), ipam_options=IPAMOptions(configs=configs))


def task(service: str, *ips: str) -> EndpointRow:
    places = tuple(AddressRow("n" + ip.split(".")[2], ip, "") for ip in ips)
    return EndpointRow(service + "task", service + "id", service, 1, "c" * 64, places)


NETWORKS = [network(1), network(2)]
ROWS = [
    ("node1", task("web", "127.71.1.10")),
    ("node1", task("db", "127.71.2.10")),
    ("node2", task("both", "127.71.1.20", "127.71.2.20")),
]


@pytest.fixture
async def outside():
    """A resolver of the host, and the port that it and the server under test use."""
    resolver = Resolver(saying("192.0.2.1"))
    resolver.port = await resolver.start("127.71.9.9")
    yield resolver
    resolver.stop()


@pytest.fixture
async def dns(outside, tmp_path):
    (tmp_path / "resolv.conf").write_text("nameserver 127.71.1.2\nnameserver 127.71.9.9\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        loopback_port = free.getsockname()[1]
    service = DnsService(
        port=outside.port, forward_port=outside.port, loopback_port=loopback_port,
        resolv_conf=tmp_path / "resolv.conf", rng=random.Random(1),
    )  # fmt: skip
    service.update(NETWORKS, OWN, ROWS)
    await service.open()
    yield service
    await service.close()


def addresses(answer) -> list[str] | int:
    return [str(record.rdata) for record in answer.rr] or answer.header.rcode


async def test_who_asks_decides_what_is_seen(dns, outside):
    first, second = ("127.71.1.2", outside.port), ("127.71.2.2", outside.port)
    assert addresses(await ask(first, "web", source="127.71.1.10")) == ["127.71.1.10"]
    assert addresses(await ask(second, "db", source="127.71.2.10")) == ["127.71.2.10"]
    assert addresses(await ask(first, "db", source="127.71.1.20")) == ["127.71.2.10"]
    # Not on net2, so for this asker `db` is a name like any other outside:
    assert addresses(await ask(first, "db", source="127.71.1.10")) == ["192.0.2.1"]


async def test_askers_from_elsewhere_are_refused(dns, outside):
    assert addresses(await ask(("127.71.1.2", outside.port), "web", source="127.71.2.10")) == 5
    assert addresses(await ask(("127.71.1.2", outside.port), "example.com", source="127.0.0.1")) == 5
    assert not outside.heard


async def test_streams_answer_one_question_after_another(dns, outside):
    answers = await ask_stream(("127.71.1.2", outside.port), "web", "example.com", "both", source="127.71.1.10")
    assert [addresses(answer) for answer in answers] == [["127.71.1.10"], ["192.0.2.1"], ["127.71.1.20"]]


async def test_a_stream_of_nonsense_is_closed(dns, outside):
    reader, writer = await asyncio.open_connection("127.71.1.2", outside.port, local_addr=("127.71.1.10", 0))
    writer.write(b"\xff\xff" + b"x" * 100)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_a_change_is_answered_from_the_moment_update_returns(dns, outside):
    server = ("127.71.1.2", outside.port)
    assert addresses(await ask(server, "web", source="127.71.1.10")) == ["127.71.1.10"]
    dns.update(NETWORKS, OWN, [("node1", task("web", "127.71.1.11"))])
    assert addresses(await ask(server, "web", source="127.71.1.10")) == ["127.71.1.11"]


async def test_the_host_itself_asks_by_full_names_only(dns):
    loopback = next(address for address in dns.listening if address[0] == "127.0.0.1")
    assert addresses(await ask(loopback, "db.net2")) == ["127.71.2.10"]
    assert addresses(await ask(loopback, "db")) == 5
    assert addresses(await ask(loopback, "example.com")) == 5
    assert addresses(await ask(loopback, "10.1.71.127.in-addr.arpa", "PTR")) == ["web.1.webtask.net1."]


async def listening(dns: DnsService, wanted: set[str]) -> None:
    await until(lambda: {address for address, _ in dns.listening} == wanted)


async def until(question: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not question():  # noqa: ASYNC110 - nothing tells of it but the question
            await asyncio.sleep(0.01)


async def test_listeners_follow_the_networks(dns):
    await listening(dns, {"127.0.0.1", "127.71.1.2", "127.71.2.2"})
    dns.update(NETWORKS[:1], {"n1": "127.71.1.3/24", "n2": "127.71.2.2/24"}, ROWS)
    await listening(dns, {"127.0.0.1", "127.71.1.3"})


async def test_an_address_need_not_exist_yet(dns, outside):
    dns.update(NETWORKS, {"n1": "203.0.113.7/24"}, ROWS)
    await listening(dns, {"127.0.0.1", "203.0.113.7"})


async def test_a_taken_address_is_complained_of_and_taken_later(dns, outside, caplog, monkeypatch):
    monkeypatch.setattr("swarm_agent.dns.service.RETRY", 0.05)
    other = Resolver(saying("192.0.2.2"))
    await other.start("127.71.1.4", outside.port)
    dns.update(NETWORKS, {"n1": "127.71.1.4/24"}, ROWS)
    await until(lambda: "127.71.1.4" in caplog.text)
    other.stop()
    await listening(dns, {"127.0.0.1", "127.71.1.4"})
    assert caplog.text.count("names cannot be served") == 1
