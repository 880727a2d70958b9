"""The driver: real sockets on loopback, real time."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Callable

import pytest

from swarm_agent.gossip import Config, GossipError, GossipNode, Member, RowTooLarge, State
from swarm_agent.gossip import messages as m
from swarm_agent.gossip.streams import MAX_CONNECTIONS

KEY = bytes(32)
ANY = ("127.0.0.1", 0)


async def until(fact: Callable[[], bool], limit: float = 10.0) -> None:
    async with asyncio.timeout(limit):
        while not fact():  # noqa: ASYNC110 - facts of real nodes have no common event
            await asyncio.sleep(0.01)


Maker = Callable[..., "asyncio.Future[GossipNode]"]


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., object]]:
    nodes: list[GossipNode] = []

    async def start(id: str, to: GossipNode | None = None, **options: object) -> GossipNode:
        node = GossipNode(id, ANY, ANY, options.pop("label", "lab"), options.pop("keys", [KEY]), **options)  # type: ignore[arg-type]
        await node.start()
        nodes.append(node)
        node.on_rows(lambda: node.mark_applied(node.snapshot()))
        if to is not None:
            assert await node.join([to.address]) == 1
        return node

    yield start
    for node in nodes:
        await node.stop()


def states(node: GossipNode) -> dict[str, State]:
    return {member.id: member.state for member in node.members()}


async def test_three_nodes_find_each_other_share_rows_and_notice_a_death(make: Callable[..., object]) -> None:
    config = Config(suspicion_away=0.0)  # what ends is a process of this host, and the death is that of a host
    a = await make("a", config=config)
    b = await make("b", a, meta=b"worker", config=config)
    c = await make("c", a, config=config)
    await until(lambda: all(len(n.members()) == 3 for n in (a, b, c)))
    assert next(m.meta for m in a.members() if m.id == "b") == b"worker"
    assert [a.member(member.id) for member in a.members()] == a.members()
    assert a.member("nobody") is None
    changes: list[tuple[str, State | None, State]] = []
    a.on_members(lambda member, old: changes.append((member.id, old, member.state)))

    version = b.publish("endpoints", "task", b"10.0.0.5")
    assert await b.wait_applied(version, 5) == set()
    assert [(row.owner, row.key, row.value, row.version) for row in c.rows("endpoints")] == [
        ("b", "task", b"10.0.0.5", version)
    ]
    gone = b.withdraw("endpoints", "task")
    assert gone > version and await b.wait_applied(gone, 5) == set()
    assert a.rows("endpoints") == []
    kept = b.publish("endpoints", "other", b"x")
    assert await b.wait_applied(kept, 5) == set()

    await b.stop()
    await until(lambda: states(a)["b"] is State.DEAD and states(c)["b"] is State.DEAD)
    # Told a moment after it is known; whoever hears of the death from c alone has not suspected b.
    await until(lambda: [(id, new) for id, _, new in changes if new is State.DEAD] == [("b", State.DEAD)])
    assert a.rows("endpoints") == []
    assert "hidden" in a.explain("endpoints", "other", "b")


async def test_a_farewell_is_no_death_and_does_not_last(make: Callable[..., object]) -> None:
    a = await make("a")
    b = await make("b", a)
    await until(lambda: len(a.members()) == 2)
    await b.leave()
    await b.stop()
    await until(lambda: states(a)["b"] is State.LEFT)
    await make("b", a)
    await until(lambda: states(a)["b"] is State.ALIVE)


async def test_a_host_that_never_applies_is_named(make: Callable[..., object]) -> None:
    a = await make("a")
    deaf = GossipNode("deaf", ANY, ANY, "lab", [KEY])
    await deaf.start()
    try:
        await deaf.join([a.address])
        await until(lambda: len(a.members()) == 2)
        version = a.publish("t", "k", b"v")
        assert await a.wait_applied(version, 0.5) == {"deaf"}
        deaf.mark_applied()
        assert await a.wait_applied(version, 5) == set()
    finally:
        await deaf.stop()


async def test_rows_larger_than_a_packet_travel_too(make: Callable[..., object]) -> None:
    a = await make("a")
    b = await make("b", a)
    value = random.Random(1).randbytes(60_000)
    version = a.publish("t", "big", value)
    assert await a.wait_applied(version, 5) == set()
    assert b.rows("t")[0].value == value
    with pytest.raises(RowTooLarge, match="limit is 65536"):
        a.publish("t", "bigger", bytes(70_000))


async def test_a_joiner_gets_everything(make: Callable[..., object]) -> None:
    a = await make("a")
    for number in range(400):
        a.publish("t", f"k{number}", bytes(1000))
    b = await make("b", a)
    await until(lambda: len(b.rows("t")) == 400)


async def test_keys_are_replaced_at_run_time(make: Callable[..., object]) -> None:
    new = bytes([7]) * 32
    a = await make("a")
    b = await make("b", a)
    for ring in ([KEY, new], [new, KEY], [new]):
        for node in (a, b):
            node.set_keys(ring)
            assert await node.wait_applied(node.publish("t", "ring", repr(ring).encode()), 5) == set()
    assert a.stats().get("refused_undecryptable", 0) == b.stats().get("refused_undecryptable", 0) == 0
    stranger = GossipNode("s", ANY, ANY, "lab", [KEY])
    await stranger.start()
    assert await stranger.join([a.address], timeout=2) == 0
    await stranger.stop()
    assert a.stats()["streams_refused_undecryptable"] == 1
    assert "s" not in states(a)


async def test_another_cluster_s_node_does_not_get_in(make: Callable[..., object]) -> None:
    a = await make("a")
    other = await make("o", label="other cluster")
    assert await other.join([a.address], timeout=2) == 0
    assert len(a.members()) == len(other.members()) == 1


async def test_a_seed_that_starts_later_is_found(make: Callable[..., object]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(ANY)
        address = probe.getsockname()
    config = Config(seed_interval=0.2)
    a = GossipNode("a", ANY, ANY, "lab", [KEY], config=config)
    await a.start()
    late = GossipNode("late", address, address, "lab", [KEY], config=config)
    try:
        assert await a.join([address], timeout=2) == 0
        await late.start()
        await until(lambda: "late" in states(a) and "a" in states(late))
    finally:
        await a.stop()
        await late.stop()


async def test_garbage_on_both_sockets_costs_a_counter(make: Callable[..., object]) -> None:
    a = await make("a")
    b = await make("b", a)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for size in (0, 1, 40, 1400):
            sock.sendto(random.Random(size).randbytes(size), a.address)
    for rubbish in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\1" + bytes(16) + b"\xff" * 64,
        b"\1" + bytes(16) + b"\0\0\0\x20" + bytes(32),
    ):
        reader, writer = await asyncio.open_connection(*a.address)
        writer.write(rubbish)
        writer.write_eof()
        await reader.read()
        writer.close()
    stats = a.stats
    await until(lambda: stats().get("refused_foreign", 0) + stats().get("refused_undecryptable", 0) >= 4)
    await until(
        lambda: stats().get("streams_refused_foreign", 0) + stats().get("streams_refused_undecryptable", 0) >= 3
    )
    assert await a.wait_applied(a.publish("t", "k", b"v"), 5) == set()
    assert b.rows("t")[0].value == b"v"


async def test_too_many_connections_are_closed_at_once(make: Callable[..., object]) -> None:
    a = await make("a")
    writers = []
    for _ in range(MAX_CONNECTIONS + 5):
        _, writer = await asyncio.open_connection(*a.address)
        writers.append(writer)
    await until(lambda: a.stats().get("streams_too_many", 0) >= 5)
    for writer in writers:
        writer.close()


async def test_an_address_in_use_is_named(make: Callable[..., object]) -> None:
    a = await make("a")
    with pytest.raises(OSError, match=rf"cannot bind 127.0.0.1:{a.address[1]}"):
        await GossipNode("b", a.address, a.address, "lab", [KEY]).start()


async def test_a_blocked_loop_accuses_nobody(make: Callable[..., object]) -> None:
    a = await make("a")
    b = await make("b", a)
    await until(lambda: len(a.members()) == 2)
    events: list[tuple[Member, State | None]] = []
    a.on_members(lambda member, old: events.append((member, old)))
    b.on_members(lambda member, old: events.append((member, old)))
    for _ in range(3):
        time.sleep(1.0)  # noqa: ASYNC251 - the point: both nodes' timers are late, the answers wait in the sockets
        await asyncio.sleep(0.3)
    assert events == []
    assert a.stats()["pauses"] >= 3


async def test_a_member_whose_host_takes_connections_without_an_answer_is_given_more_time(
    make: Callable[..., object],
) -> None:
    """Its process stands still: the kernel accepts, and packets wait in a socket that nobody reads."""
    a = await make("a")
    with socket.create_server(ANY) as listener, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(listener.getsockname())
        core = a._core
        core.membership.alive(m.Alive("stopped", 1, *listener.getsockname(), 1, b""))
        peer = core.kernel.members.get("stopped")
        await until(lambda: peer.suspicion is not None and peer.suspicion.low >= a._config.suspicion_standing)
        assert any("has power" in sentence for sentence in a.explain_member("stopped"))


async def test_a_member_whose_host_refuses_connections_is_given_the_time_of_a_restart(
    make: Callable[..., object],
) -> None:
    """Its agent is away: nobody listens, and the kernel says so."""
    a = await make("a")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(ANY)
        core = a._core
        core.membership.alive(m.Alive("restarting", 1, *gone.getsockname(), 1, b""))
        peer = core.kernel.members.get("restarting")
        await until(lambda: peer.suspicion is not None and peer.suspicion.low >= a._config.suspicion_away)
        assert any("does not run" in sentence for sentence in a.explain_member("restarting"))


async def test_using_it_before_the_start_is_told() -> None:
    with pytest.raises(GossipError, match="await start"):
        GossipNode("a", ANY, ANY, "lab", [KEY]).members()
