"""Gossip's key is replaced under real gossip nodes on loopback, and nothing is lost on the way."""

import asyncio
import base64
import contextlib

from swarm_agent.gossip import GossipNode
from swarm_agent.model.objects import Cluster
from swarm_agent.model.times import rfc3339
from swarm_agent.node.gossip_keys import PERIOD, GossipKeys, decode_meta, encode_meta, have_all, is_due, next_step, raw
from swarm_agent.store.memory import memory_store

OLD = base64.b64encode(b"o" * 32).decode()
NEW = base64.b64encode(b"n" * 32).decode()
START = 1_800_000_000 * 10**9


def cluster(*keys: str, step: int = 0) -> Cluster:
    return Cluster(id="c", gossip_keys=list(keys), gossip_step=step, gossip_changed_at=rfc3339(START))


def test_three_steps_from_one_key_to_the_next():
    seen = [cluster(OLD)]
    for _ in range(3):
        seen.append(next_step(seen[-1], NEW, START + 1))
    assert [item.gossip_keys for item in seen] == [[OLD], [OLD, NEW], [NEW, OLD], [NEW]]
    assert [item.gossip_step for item in seen] == [0, 1, 2, 0]
    assert seen[-1].gossip_changed_at == rfc3339(START + 1)


def test_a_key_is_used_for_its_period_and_a_change_waits_for_everybody():
    assert PERIOD == 12 * 3600 * 10**9
    everybody, nobody = (lambda keys: True), (lambda keys: False)
    assert not is_due(cluster(OLD), START + PERIOD - 1, PERIOD, everybody)
    assert is_due(cluster(OLD), START + PERIOD, PERIOD, everybody)
    assert not is_due(cluster(OLD), START + PERIOD, PERIOD, nobody)
    assert is_due(cluster(OLD, NEW, step=1), START, PERIOD, everybody)
    assert not is_due(cluster(OLD, NEW, step=1), START, PERIOD, nobody)


def test_what_a_host_tells_names_its_keys_without_giving_them_away():
    meta = encode_meta("10.0.0.1", [b"o" * 32, b"n" * 32])
    assert decode_meta(meta)[0] == "10.0.0.1" and b"oooo" not in meta
    assert have_all([meta], [b"o" * 32, b"n" * 32])
    assert not have_all([meta], [b"n" * 32, b"o" * 32])
    assert not have_all([meta, b"10.0.0.2"], [b"o" * 32, b"n" * 32])


async def test_hosts_that_get_their_keys_late_lose_no_message():
    nodes = [GossipNode(f"n{i}", ("127.0.0.1", 0), ("127.0.0.1", 0), "c", raw(cluster(OLD))) for i in range(3)]
    held = {node: raw(cluster(OLD)) for node in nodes}
    store = memory_store()
    await store.update(lambda tx: tx.create(cluster(OLD)))

    def settled(keys):
        return have_all((member.meta for member in nodes[0].members() if member.state.live), keys)

    async def deliver(node, delay):
        """A session that brings the keys some time after they changed."""
        while True:
            keys = raw(store.view().get(Cluster, "c"))
            if keys != held[node] or not node.members()[0].meta:
                await asyncio.sleep(delay)
                node.set_keys(keys)
                node.set_meta(encode_meta("", keys))
                held[node] = keys
            await asyncio.sleep(0.01)

    for node in nodes:
        await node.start()
    for node in nodes[1:]:
        await node.join([nodes[0].address])
    rotation = GossipKeys(store, settled, look=0.02, clock=lambda: START + PERIOD + 1)
    sessions = [asyncio.create_task(deliver(node, delay)) for node, delay in zip(nodes, (0.0, 0.05, 0.3), strict=True)]
    try:
        await rotation.start()
        published = 0
        async with asyncio.timeout(30):
            while store.view().get(Cluster, "c").gossip_changed_at == rfc3339(START) or any(
                keys != raw(store.view().get(Cluster, "c")) for keys in held.values()
            ):
                version = nodes[published % 3].publish("t", "k", str(published).encode())
                for node in nodes:
                    node.mark_applied(node.snapshot())
                assert await _applied(nodes, nodes[published % 3], version) == set()
                published += 1
        final = store.view().get(Cluster, "c")
        assert len(final.gossip_keys) == 1 and final.gossip_keys != [OLD]
        assert published > 2
        assert [refused(node) for node in nodes] == [{}, {}, {}]
        nodes[0].set_keys([b"x" * 32])  # and it would have been noticed:
        nodes[0].publish("t", "k", b"under a key that nobody has")
        waiting = asyncio.create_task(nodes[0].wait_applied(nodes[0].publish("t", "k", b"again"), 1.0))
        await waiting
        assert refused(nodes[1]) or refused(nodes[2])
    finally:
        for task in sessions:
            task.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)
        await rotation.stop()
        for node in nodes:
            with contextlib.suppress(OSError):
                await node.stop()
        await store.close()


def refused(node: GossipNode) -> dict[str, int]:
    """Packets and streams that the node could not read."""
    return {name: count for name, count in node.stats().items() if "undecryptable" in name and count}


async def _applied(nodes, owner, version):
    waiting = asyncio.create_task(owner.wait_applied(version, 5.0))
    while not waiting.done():
        for node in nodes:
            node.mark_applied(node.snapshot())
        await asyncio.sleep(0.005)
    return waiting.result()
