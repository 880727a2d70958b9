"""Rows between simulated nodes: acknowledged, in bursts, repaired."""

from __future__ import annotations

import pytest

from swarm_agent.gossip.config import Config
from tests.sim.gossip_world import World


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.3])
def test_a_publication_is_acknowledged_by_all(loss: float) -> None:
    world = World(f"ack/{loss}", loss=loss)
    nodes = world.cluster(3, settle=False)
    world.run(5)
    acks = nodes[0].core.rows.acks
    for number in range(30):
        start = world.now
        sequence = world.publish("n0", "k", b"%d" % number)
        handle = acks.wait(sequence)
        assert world.run_until(lambda sequence=sequence: not acks.missing(sequence), 10)
        acks.end_wait(handle)
        assert all(node.rows()[("n0", "k")] == b"%d" % number for node in nodes[1:])
        if loss == 0:
            assert world.now - start < 0.2
        world.run(1)


def test_a_host_that_does_not_apply_is_named() -> None:
    world = World(31)
    nodes = world.cluster(3)
    nodes[2].auto_apply = False
    sequence = world.publish("n0", "k", b"v")
    acks = nodes[0].core.rows.acks
    acks.wait(sequence)
    world.run(3)
    assert acks.missing(sequence) == {"n2"}
    world.kill("n2")
    assert world.run_until(lambda: not acks.missing(sequence), 10), "the dead are not waited for"


def test_a_burst_of_rows_arrives_in_under_a_second() -> None:
    world = World(32)
    nodes = world.cluster(3)
    for number in range(300):
        sequence = world.publish("n0", f"k{number}", bytes(1000))
    acks = nodes[0].core.rows.acks
    start = world.now
    acks.wait(sequence)
    assert world.run_until(lambda: not acks.missing(sequence), 5)
    assert world.now - start < 1.0


def test_a_row_that_changes_all_the_time_is_never_behind_for_long() -> None:
    world = World(33, loss=0.05)
    nodes = world.cluster(8, settle=False)
    world.run(3)
    for number in range(200):
        world.publish("n0", "hot", b"%d" % number)
        world.run(0.02)
    world.settle(3)
    assert sum(node.core.kernel.counters["pulls"] for node in nodes) < 200, "later changes stand for earlier ones"


def test_a_quiet_fifty_node_cluster_learns_of_a_row_within_a_second() -> None:
    world = World(34, check=False)
    nodes = world.cluster(50)
    times = []
    for number in range(20):
        owner = f"n{number * 2}"
        world.publish(owner, f"k{number}", b"v")
        start = world.now
        assert world.run_until(lambda o=owner, k=f"k{number}": all((o, k) in n.rows() for n in nodes), 5, step=0.01)
        times.append(world.now - start)
        world.run(2)
    assert max(times) < 1.0


def test_a_missed_row_is_found_by_the_digest_not_the_slow_sweep() -> None:
    """... even when its owner cannot tell of it: any other member's packets show the difference."""
    world = World(35, config=Config(sync_interval=1e6))
    nodes = world.cluster(10)
    world.cuts = {(id, "n7") for id in world.nodes}
    world.publish("n0", "k", b"v")
    world.run(1.2)  # gossip of the row is over
    world.heal()
    world.cut("n0", "n7")
    start = world.now
    assert world.run_until(lambda: ("n0", "k") in nodes[7].rows(), 10)
    assert world.now - start < 6.0
    world.heal()
    world.settle()
