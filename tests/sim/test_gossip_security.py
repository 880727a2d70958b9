"""Keys, strangers and recorded packets in a world of real cores."""

from __future__ import annotations

from swarm_agent.gossip.types import State
from tests.sim.gossip_world import KEY, Node, World


def test_keys_rotate_without_a_dropped_packet() -> None:
    world = World(40)
    nodes = world.cluster(5)
    new = bytes(32)
    order = list(nodes)
    for ring in ([KEY, new], [new, KEY], [new]):
        world._net.shuffle(order)
        for node in order:
            node.ring.replace(ring)
            world.run(0.3)  # the steps reach the nodes at different times
            world.publish(node.id, "k", repr(ring).encode())
    world.settle()
    assert all(node.core.kernel.counters["refused_undecryptable"] == 0 for node in nodes)
    assert world.deaths == []


def test_recorded_packets_that_are_sent_again_change_nothing() -> None:
    """Somebody on the way repeats each packet, at once and a while later, from an address of his own."""
    world = World(42)
    nodes = world.cluster(3)
    recorded: list[tuple[Node, bytes]] = []

    def record(source: Node, target: Node, data: bytes) -> bytes:
        recorded.append((target, data))
        return data

    world.tamper = record
    world.publish("n0", "k", b"old")
    world.run(5)
    world.tamper = None
    world.publish("n0", "k", b"new")
    world.settle()
    before = [node.core.members() for node in nodes]
    for target, data in recorded:
        target.core.receive(world.now, ("10.9.9.9", 7946), data)
        assert target.core.take() == []
    assert sum(node.core.kernel.counters["refused_replayed"] for node in nodes) == len(recorded) > 20
    assert [node.core.members() for node in nodes] == before
    assert all(node.rows() == {("n0", "k"): b"new"} for node in nodes)


def test_a_host_without_the_new_key_is_out() -> None:
    world = World(41)
    nodes = world.cluster(3)
    for node in nodes[:2]:
        node.ring.replace([bytes(32)])
    assert world.run_until(lambda: nodes[0].state("n2") is State.DEAD and nodes[1].state("n2") is State.DEAD, 10)
    world.publish("n0", "secret", b"v")
    world.run(5)
    assert nodes[2].rows() == {}
