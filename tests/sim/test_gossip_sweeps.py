"""The gossip at size (the questions of tests/bench/gossip_sizes.py, up to 5,000 nodes there) and under random faults
over seeds, real core and packets. GOSSIP_SEEDS sets how many seeds. Last: that the world's demands can fail."""

from __future__ import annotations

import os
import random

import pytest

from swarm_agent.gossip.core import Core
from swarm_agent.gossip.types import State
from tests.sim import gossip_scenarios as scenarios
from tests.sim.gossip_world import EPOCH_BEHIND, World

SEEDS = int(os.environ.get("GOSSIP_SEEDS", "40"))


def test_two_hundred_quiet_nodes_learn_of_a_row_within_a_second_and_of_a_death_within_six() -> None:
    world = scenarios.formed(200)
    assert max(scenarios.row_times(world, 4, gap=0.3)) < 1.0
    _, last = scenarios.kill_times(world, "n7")
    assert last < 6.0
    assert {subject for _, _, subject in world.deaths} == {"n7"}


@pytest.mark.parametrize(("count", "loss"), [(3, 0.3), (10, 0.3), (50, 0.1)])
def test_lost_packets_kill_nobody(count: int, loss: float) -> None:
    assert scenarios.false_deaths_under_loss(scenarios.formed(count, "loss"), loss, 300 / count) == 0


@pytest.mark.parametrize("count", [5, 40])
def test_restarts_of_half_the_nodes_and_of_one_after_another_and_a_split_end_in_agreement(count: int) -> None:
    world = scenarios.formed(count, "restarts")
    assert scenarios.mass_restart(world, 0.5) < 12.0
    took, deaths = scenarios.rolling_restart(world, min(4, count - 1), 0.2)
    assert (took < 12.0, deaths) == (True, 0)
    assert scenarios.split(world, 8.0) < 15.0


def storm(world: World, rng: random.Random, ids: list[str], turns: int) -> None:
    """Random faults and changes."""
    for _ in range(turns):
        what = rng.choice(("publish", "publish", "withdraw", "kill", "pause", "cut", "heal", "leave", "lag", "run"))
        id = rng.choice(ids)
        node = world.nodes[id]
        if what == "publish" and node.up:
            world.publish(id, f"k{rng.randrange(6)}", rng.randbytes(rng.choice((3, 40, 900, 3000))))
        elif what == "withdraw" and node.up:
            world.publish(id, f"k{rng.randrange(6)}", None)
        elif what in ("kill", "leave") and node.up and sum(n.up for n in world.nodes.values()) > 2 and id != "n0":
            if what == "leave":
                world.leave(id)
                world.run(rng.uniform(0, 1.0))
            world.kill(id)
            back = rng.choice((0.05, 1.0, 6.0))
            world.at(back, revive, world, id, rng.choice((None, None, EPOCH_BEHIND + rng.randrange(1000))))
        elif what == "pause" and node.up and not node.paused:
            world.pause(id, rng.choice((0.3, 1.0, 4.0)))
        elif what == "cut":
            world.cut(id, rng.choice(ids), both=rng.random() < 0.5)
        elif what == "heal":
            world.cuts.clear()
        elif what == "lag" and node.up:
            node.lag = rng.choice((0.0, 0.3, 1.0))
        world.run(rng.choice((0.0, 0.05, 0.5, 2.0)))


def revive(world: World, id: str, incarnation: int | None) -> None:
    if not world.nodes[id].up:
        world.start(id, incarnation=incarnation)
        world.join(id, "n0")
        for number in range(2):
            world.publish(id, f"r{number}", b"back")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_storm_passes(seed: int) -> None:
    """Loss, duplication, cuts, pauses, starvation, kills, restarts with clocks behind, leaves: then agreement, rows
    included.
    """
    rng = random.Random(f"storm/{seed}")
    count = rng.choice((3, 3, 4, 5, 8))
    world = World(f"storm/{seed}", loss=rng.choice((0, 0.02, 0.1, 0.3)), duplicate=rng.choice((0, 0.05)))
    world.cluster(count, settle=False)
    storm(world, rng, [f"n{i}" for i in range(count)], 25)
    world.heal()
    world.run(8)  # pauses and revivals end
    for node in world.nodes.values():
        if node.up:
            world.do(node.id, lambda core: core.rows.baseline())
    world.settle(90)


@pytest.mark.parametrize("seed", range(max(3, SEEDS // 8)))
def test_starved_nodes_are_not_declared_dead(seed: int) -> None:
    """Lifeguard's setting: some nodes read late. With memberlist's timing halved, still nobody dies."""
    world = World(f"starved/{seed}", loss=0.01, check=False)
    nodes = world.cluster(20, settle=False)
    world.run(5)
    world.deaths.clear()
    for node in nodes[:3]:
        node.lag = 0.6
    world.run(60)
    assert world.deaths == []


def test_the_same_seed_gives_the_same_story() -> None:
    def story() -> tuple[int, list[tuple[float, str, State | None, State]]]:
        world = World("same", loss=0.1)
        world.cluster(5, settle=False)
        storm(world, random.Random(1), [f"n{i}" for i in range(5)], 15)
        return world.events, world.nodes["n0"].events

    assert story() == story()


class ForgetsToRefute(Core):
    """A seeded bug, to see that the world's demands can fail."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.membership._refute = lambda incarnation: None  # type: ignore[method-assign]


def test_the_world_notices_in_a_large_cluster_that_somebody_else_raised_an_incarnation() -> None:
    world = scenarios.formed(40)

    def meddle(core: Core) -> None:
        peer = core.kernel.members.get("n7")
        assert peer is not None
        peer.incarnation += 1

    with pytest.raises(AssertionError, match="n3 raised that of n7"):
        world.do("n3", meddle)


def test_the_world_notices_a_core_that_does_not_refute() -> None:
    world = World(50, core=ForgetsToRefute)
    world.cluster(3)
    world.partition(["n2"], ["n0", "n1"])
    world.run(10)
    world.heal()
    with pytest.raises(AssertionError, match="no agreement"):
        world.settle(20)
